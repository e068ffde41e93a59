"""What can go wrong in a run host. Each error has a stable ``reason`` and its facts as attributes."""

from __future__ import annotations

import asyncio

from langchain_core.tools import ToolException


class HostError(Exception):
    """Base of the errors that end a run or refuse a graph; ``reason`` is a stable UPPER_SNAKE code.

    :param detail: a traceback's tail or another long text, for developers.
    """

    reason = "HOST_FAILED"

    def __init__(self, message: str, *, reason: str | None = None, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        if reason is not None:
            self.reason = reason


class GraphInvalidError(HostError):
    """The graph that a revision names can't be loaded."""

    reason = "GRAPH_INVALID"


class ModelUnavailableError(HostError):
    """A chat model can't be made: MODEL_PACKAGE_MISSING, MODEL_KEY_MISSING or MODEL_UNKNOWN."""

    def __init__(self, message: str, *, reason: str, model: str) -> None:
        super().__init__(message, reason=reason)
        self.model = model


class SecretMissingError(HostError):
    """A secret's reference leads nowhere. Names the reference, never a value."""

    reason = "SECRET_MISSING"

    def __init__(self, variable: str, reference: str, problem: str) -> None:
        super().__init__(f"The secret {variable} ({reference}) can't be read on this machine: {problem}.")
        self.variable = variable
        self.reference = reference


class StateNotSerializableError(HostError):
    """A value of the graph's state can't be stored."""

    reason = "STATE_NOT_SERIALIZABLE"

    def __init__(self, channel: str, problem: str) -> None:
        super().__init__(
            f"The state's channel {channel!r} can't be stored: {problem}. Keep what a file or a connection holds outside of the state."
        )
        self.channel = channel


class StateTooLargeError(HostError):
    """A checkpoint with its pending writes is more than can be read at once."""

    reason = "STATE_TOO_LARGE"

    def __init__(self, channel: str, channel_bytes: int, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"The state has {size_bytes} bytes, and {limit_bytes} are the most; {channel_bytes} of them are in the channel "
            f"{channel!r}. Keep large values outside of the state, and a reference to them in it."
        )
        self.channel = channel
        self.channel_bytes = channel_bytes
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class OutputNotSerializableError(HostError):
    """The graph's output holds something that JSON can't."""

    reason = "OUTPUT_NOT_SERIALIZABLE"


class FrameTooLargeError(HostError):
    """A frame is larger than both ends have agreed on."""

    reason = "FRAME_TOO_LARGE"

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"A message of {size_bytes} bytes is over the limit of {limit_bytes} bytes: keep large values outside of the "
            "graph's state and output, and a reference to them in it."
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class FrameInvalidError(HostError):
    """A frame holds no message."""

    reason = "FRAME_INVALID"


class ChannelClosedError(HostError):
    """The worker's end of the socket is gone."""

    reason = "WORKER_GONE"

    def __init__(self) -> None:
        super().__init__("The worker's end of the socket is closed.")


class ServerRefusedError(HostError):
    """The server refused a message of this run, for example because its lease is stale."""

    reason = "SERVER_REFUSED"


class CallRefused(ToolException):
    """A tool call was refused before it began: nothing has happened."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RecordedFailure(ToolException):
    """The call has failed in an earlier execution of this task; it carries that error's text."""


class ToolTimeout(ToolException):
    """A tool call took longer than the revision allows. Whether its effect happened is unknown."""

    reason = "TOOL_TIMEOUT"


class ToolResultRefused(ToolException):
    """A tool returned what can't be kept: TOOL_RESULT_TOO_LARGE or TOOL_RESULT_NOT_SERIALIZABLE. Its effect has
    happened."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RunStopped(asyncio.CancelledError):
    """The run must not go on here: a halt covers it, or its lease is gone. A ``CancelledError``, and so a
    ``BaseException``: neither a ToolNode's error handling nor an agent's ``except Exception`` can swallow it."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause
