"""The server process: ``python -m fermata.server``. ``fermata up`` starts it and looks after it."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import uvloop

from fermata.server.errors import DomainError
from fermata.server.serving import Server
from fermata.server.settings import ServerSettings, parse_arguments

EXIT_CONFIGURATION = 78
"""sysexits.h EX_CONFIG: starting again would not help."""

log = logging.getLogger("fermata.server")


def main() -> int:
    """Serve until SIGTERM or SIGINT; 78 where the configuration can't work."""
    logging.basicConfig(
        level=os.environ.get("FERMATA_LOG_LEVEL", "INFO").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # They tell of every context and of every request; what people need to know is that a migration ran.
    for chatty in ("alembic.runtime.plugins", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with _configuration_errors():
        settings = parse_arguments()
        uvloop.run(_serve(settings))
    return 0


async def _serve(settings: ServerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await Server.start(settings)
    if settings.ready_fd is not None:
        with os.fdopen(settings.ready_fd, "w") as ready:
            ready.write(json.dumps({"event": "serving", "address": server.address}) + "\n")
    # What is here now stays: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 1_000)
    await stop.wait()
    log.info("draining")
    await server.stop()


@contextmanager
def _configuration_errors() -> Iterator[None]:
    try:
        yield
    except DomainError as error:
        print(f"error [{error.reason}] {error.message}", file=sys.stderr)
        raise SystemExit(EXIT_CONFIGURATION) from None


if __name__ == "__main__":
    grpc.aio.init_grpc_aio()
    raise SystemExit(main())
