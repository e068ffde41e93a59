"""The plant's own process: ``python -m fermata.agents.factory.plant --port 0 --scenario bearing-wear``.

It serves OPC UA on loopback, prints one line when it is ready, and ends with exit code 0 on SIGTERM or
SIGINT. It has no authentication (it is an example, not a product), so it refuses to listen beyond loopback
unless told that this is meant.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from asyncua import ua
from asyncua.server.server import Server

from fermata.agents.factory import scenarios
from fermata.agents.factory.opcua import PLANT_PATH, PlantNodes

DEFAULT_PORT = 4840
DEFAULT_TICK_SECONDS = 0.25
EXIT_FAILED = 1


@dataclass(frozen=True, slots=True)
class PlantOptions:
    """How to run a plant. ``time_scale`` is simulated seconds per second; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    scenario: str = "normal"
    seed: int = 7
    tick_seconds: float = DEFAULT_TICK_SECONDS
    time_scale: float = 1.0
    allow_remote: bool = False


class PlantStartError(Exception):
    """The plant could not start. ``reason`` is PLANT_PORT_IN_USE, PLANT_NOT_LOOPBACK or
    PLANT_ADDRESS_INVALID.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


async def serve(options: PlantOptions, stop: asyncio.Event, *, ready_json: bool = False) -> None:
    """Serve a plant until ``stop`` is set. Raises :class:`PlantStartError`."""
    listener = _listen(options)
    host, port = listener.getsockname()[:2]
    # asyncua binds by itself; the probe told us that the address is free, and which port 0 became.
    listener.close()
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://{_url_host(host)}:{port}{PLANT_PATH}")
    server.set_server_name("Fermata factory plant")
    server.allow_remote_admin(False)
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    nodes = await PlantNodes.build(server, list(scenarios.past(options.scenario, options.seed)))
    try:
        await server.start()
    except OSError as error:
        raise _start_error(options, error) from error
    try:
        _announce(server.endpoint.geturl(), options, as_json=ready_json)
        while not stop.is_set():
            await nodes.advance(options.tick_seconds * options.time_scale)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), options.tick_seconds)
    finally:
        await server.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parsed = _parser().parse_args(arguments)
    options = PlantOptions(
        host=parsed.host,
        port=parsed.port,
        scenario=parsed.scenario,
        seed=parsed.seed,
        tick_seconds=parsed.tick_seconds,
        time_scale=parsed.time_scale,
        allow_remote=parsed.allow_remote,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    # asyncua logs a traceback for what we report in one sentence, and for each client that just goes away.
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    try:
        asyncio.run(_serve_until_signalled(options, ready_json=parsed.ready_json))
    except PlantStartError as error:
        fault = json.dumps({"error": {"reason": error.reason, "message": str(error)}})
        sys.stderr.write((fault if parsed.ready_json else f"{error.reason}: {error}") + "\n")
        return EXIT_FAILED
    return 0


async def _serve_until_signalled(options: PlantOptions, *, ready_json: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(options, stop, ready_json=ready_json)


def _listen(options: PlantOptions) -> socket.socket:
    if not (options.allow_remote or _is_loopback(options.host)):
        raise PlantStartError(
            f"The plant has no authentication and {options.host} is not a loopback address: anybody who "
            "reaches it could change the plant. Use --host 127.0.0.1, or --allow-remote on a network that "
            "you trust.",
            reason="PLANT_NOT_LOOPBACK",
        )
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise _start_error(options, error) from error
    return listener


def _start_error(options: PlantOptions, error: OSError) -> PlantStartError:
    where = f"{options.host}:{options.port}"
    if error.errno == errno.EADDRINUSE:
        return PlantStartError(
            f"{where} is in use by another process: stop that one, or choose another port with --port "
            "(0 takes a free one).",
            reason="PLANT_PORT_IN_USE",
        )
    return PlantStartError(
        f"The plant cannot listen on {where} ({error.strerror or error}): choose another address with --host "
        "and --port.",
        reason="PLANT_ADDRESS_INVALID",
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _announce(endpoint: str, options: PlantOptions, *, as_json: bool) -> None:
    facts = {
        "ready": True,
        "endpoint": endpoint,
        "pid": os.getpid(),
        "scenario": options.scenario,
        "seed": options.seed,
    }
    text = f"The plant is ready at {endpoint} (scenario {options.scenario}, seed {options.seed})."
    sys.stdout.write((json.dumps(facts) if as_json else text) + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fermata.agents.factory.plant",
        description="A simulated plant of four lines behind OPC UA.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=_port, default=DEFAULT_PORT, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--scenario", choices=sorted(scenarios.SCENARIOS), default="normal", help="how the plant starts"
    )
    parser.add_argument("--seed", type=int, default=7, help="all chance comes from it (default: %(default)s)")
    parser.add_argument(
        "--tick-seconds",
        type=_positive,
        default=DEFAULT_TICK_SECONDS,
        help="time between two steps (default: %(default)s)",
    )
    parser.add_argument(
        "--time-scale",
        type=_positive,
        default=1.0,
        help="simulated seconds per second (default: %(default)s)",
    )
    parser.add_argument(
        "--allow-remote", action="store_true", help="listen beyond loopback, without authentication"
    )
    parser.add_argument(
        "--ready-json", action="store_true", help="print the ready line (and a failure) as JSON"
    )
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not a port (0 to 65535)")
    return port


def _positive(text: str) -> float:
    number = float(text)
    if not 0.0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


if __name__ == "__main__":
    sys.exit(main())
