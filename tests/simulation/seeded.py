"""Everything that would differ from run to run, owned by a seed: time, random numbers, ids."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.simulation.loop import SimulatedLoop


@contextmanager
def owned_by(seed: int) -> Iterator[tuple[SimulatedLoop, random.Random]]:
    """A loop, and the seed's random numbers, while no code of this process can get any others. Run with PYTHONHASHSEED=0."""
    rng = random.Random(seed)
    ids = random.Random(seed + 1)
    loop = SimulatedLoop(rng)
    replaced = [
        (time, "time", loop.time),
        (time, "time_ns", lambda: int(loop.time() * 1e9)),
        (time, "monotonic", loop.time),
        (os, "urandom", ids.randbytes),
        (random, "_urandom", ids.randbytes),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in replaced]
    state = random.getstate()
    random.seed(seed)
    try:
        for module, name, value in replaced:
            setattr(module, name, value)
        yield loop, rng
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        random.setstate(state)
        loop.forget()
        loop.close()
