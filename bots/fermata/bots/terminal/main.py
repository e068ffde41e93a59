"""The entry point: run a command, and turn whatever goes wrong into a message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer

from fermata.client import FermataError

from . import exits
from .app import app
from .output import report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; its exit code is one of ``exits``.

    :param arguments: in place of ``sys.argv[1:]``.
    """
    code: object = exits.OK
    try:
        code = app(args=list(sys.argv[1:] if arguments is None else arguments), standalone_mode=False)
    except FermataError as failure:
        report(failure)
        return exits.code_of(failure)
    except typer.TyperException as usage:
        show: Any = getattr(usage, "show", None)  # the class that has it is not a public name
        if show is not None:
            show()
        return usage.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return exits.INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (as in ``fermata runs | head``): flushing at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OK
    return code if isinstance(code, int) else exits.OK


def script() -> None:
    """``main`` as a console script."""
    sys.exit(main())


if __name__ == "__main__":
    script()
