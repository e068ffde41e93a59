"""Exit codes, for scripts.

==== ==========================================================================================
  0  done; a run that was followed has succeeded
  1  a run that was followed failed, was halted, cancelled or expired; a policy test was denied;
     some files of an ingest failed; or the server met a fault of its own
  2  wrong usage, a malformed file or argument
  3  what was named is not there
  4  the present state does not allow it: decided already, held, halted, busy, a stale etag
  5  not authenticated, or without the right
  6  the server is out of reach, or did not answer in time
  7  the run waits for a person, and there is no terminal to ask at
130  interrupted
==== ==========================================================================================
"""

from __future__ import annotations

import grpc

from fermata.client import FermataError, LocalError

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
CONFLICT = 4
DENIED = 5
UNAVAILABLE = 6
WAITING = 7
INTERRUPTED = 130

_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: USAGE,
    grpc.StatusCode.NOT_FOUND: NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: CONFLICT,
    grpc.StatusCode.ABORTED: CONFLICT,
    grpc.StatusCode.UNAUTHENTICATED: DENIED,
    grpc.StatusCode.PERMISSION_DENIED: DENIED,
    grpc.StatusCode.UNAVAILABLE: UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: UNAVAILABLE,
}
_LOCAL_DENIED = frozenset(
    {
        "TOKEN_FILE_EXPOSED",
        "TOKEN_FILE_MISSING",
        "TOKEN_FILE_EMPTY",
        "TOKEN_OVER_PLAINTEXT",
        "TOKEN_MALFORMED",
    }
)
_HINTS = {
    "UNAVAILABLE": "Is the server running? Start it with: fermata up",
    "NO_SERVER_CONFIGURED": "fermata up --help tells how to start one.",
    "UNAUTHENTICATED": "Name a token with FERMATA_TOKEN_FILE, or ask an admin for one.",
    "PERMISSION_DENIED": "fermata whoami shows your roles.",
    "RUN_NOT_FOUND": "fermata runs lists them.",
    "APPROVAL_NOT_FOUND": "fermata approvals lists them.",
    "AGENT_NOT_FOUND": "fermata agents lists them.",
    "LATCH_NOT_FOUND": "fermata latches lists them.",
    "COLLECTION_NOT_FOUND": "fermata documents lists collections.",
    "THREAD_BUSY": "Wait for its run, halt it (fermata halt RUN), or say --on-busy enqueue, interrupt or rollback",
    "APPROVAL_DIGEST_MISMATCH": "It has changed since it was shown. Look at it again: fermata approvals",
}


def code_of(failure: FermataError) -> int:
    """The exit code for an error."""
    if isinstance(failure, LocalError):
        if failure.reason == "NO_SERVER_CONFIGURED":
            return UNAVAILABLE
        return DENIED if failure.reason in _LOCAL_DENIED else _BY_CODE.get(failure.code, USAGE)
    return _BY_CODE.get(failure.code, FAILED)


def hint_of(failure: FermataError) -> str:
    """What to do next; empty where the message says it all."""
    return _HINTS.get(failure.reason, "")
