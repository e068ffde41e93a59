"""The Python client of Fermata's gRPC API, async (``Client``) and sync (``SyncClient``).

One module per noun, each a thin layer over the generated stub: it completes names, fills in what makes a
retry safe and turns errors into exceptions, and hands out the API's own messages. Classes of our own for
every message were refused: a second vocabulary to learn and to keep in step. Reading agent files
(``bundle``) is here too, because the command line and any service apply agents the same way.
"""

from .client import Client
from .config import Connection
from .errors import (
    AbortedError,
    AlreadyExistsError,
    CancelledError,
    DeadlineExceededError,
    FailedPreconditionError,
    FermataError,
    InternalError,
    InvalidArgumentError,
    LocalError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
    Violation,
)
from .retry import RetryPolicy
from .runs import TERMINAL_STATES
from .streams import StreamOptions
from .sync import SyncClient
from .threads import MultitaskStrategy

__all__ = [
    "TERMINAL_STATES",
    "AbortedError",
    "AlreadyExistsError",
    "CancelledError",
    "Client",
    "Connection",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "FermataError",
    "InternalError",
    "InvalidArgumentError",
    "LocalError",
    "MultitaskStrategy",
    "NotFoundError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "RetryPolicy",
    "StreamOptions",
    "SyncClient",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
    "Violation",
]
