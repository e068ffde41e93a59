"""Settings for all tests."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that. Tests that interrupt a
# command need it as it is at a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests run beside each other on few cores: how long an example takes says nothing about the code.
settings.register_profile("fermata", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fermata")
