"""Why ``fermata up`` does not start, or gives up."""

from __future__ import annotations

CONFIG_EXIT_CODE = 78
"""EX_CONFIG: a repeat can't help until somebody changes something. A child that exits with it is not
restarted.
"""
UNAVAILABLE_EXIT_CODE = 69
"""EX_UNAVAILABLE: something that we need is not there."""


class StartError(Exception):
    """The control plane can't start. The message says what is wrong, where, and how to mend it.

    :param reason: stable UPPER_SNAKE code.
    :param facts: addresses, paths and names involved.
    """

    exit_code = CONFIG_EXIT_CODE

    def __init__(self, reason: str, message: str, **facts: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.facts = facts


class UnavailableError(StartError):
    """Something outside of the supervisor is not there."""

    exit_code = UNAVAILABLE_EXIT_CODE


FAILED_EXIT_CODE = 70
"""EX_SOFTWARE: a part of ours does not work; its log says more."""


class ChildFailedError(StartError):
    """A child process can't be kept alive. ``message`` holds what it last wrote."""

    def __init__(self, reason: str, message: str, *, child: str, exit_code: int, log: str) -> None:
        super().__init__(reason, message, child=child, exit_code=str(exit_code), log=log)
        self.child = child
        self.exit_code = exit_code if exit_code == CONFIG_EXIT_CODE else FAILED_EXIT_CODE
