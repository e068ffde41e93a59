"""Check ``compose.yaml`` without a container engine: ``python deploy/check_compose.py [FILE]``.

What an engine would only tell when the containers start is looked at here: that every image, stage, file, volume
and service that is named exists, that nothing is published beyond loopback, and that each command line is
understood by the program that it calls. Where the ``docker compose`` plugin is installed it has its say as well.
Exit code 1, and one line for each problem, if anything is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = Path(__file__).with_name("compose.yaml")

_SERVICE_KEYS = frozenset(
    {
        "build",
        "cap_drop",
        "command",
        "depends_on",
        "environment",
        "healthcheck",
        "image",
        "init",
        "network_mode",
        "ports",
        "profiles",
        "restart",
        "security_opt",
        "shm_size",
        "stop_grace_period",
        "volumes",
    }
)
_CONDITIONS = frozenset({"service_started", "service_healthy", "service_completed_successfully"})
_LOOPBACK = re.compile(r"(127\.\d+\.\d+\.\d+|\[::1\]):")
_SHARED_NETWORK = "service:"


def problems(compose: Mapping[str, Any], folder: Path) -> list[str]:
    """Everything that is wrong with a compose document, as sentences.

    :param folder: of the compose file; its build contexts and files are relative to it.
    """
    services = compose.get("services")
    if not isinstance(services, dict) or not services:
        return ["services: there are none"]
    found = []
    for name, service in services.items():
        found += [f"services.{name}: {problem}" for problem in _service(name, service, compose, folder)]
    return found


def _service(name: str, service: Any, compose: Mapping[str, Any], folder: Path) -> Iterator[str]:
    if not isinstance(service, dict):
        yield "it should be a mapping"
        return
    for key in service.keys() - _SERVICE_KEYS:
        yield f"{key} is not among the keys that are used here; a slip, or to be added to the check"
    if service.get("privileged") or service.get("cap_add"):
        yield "it asks for rights that nothing here needs"
    if service.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in service.get("security_opt", []):
        yield "cap_drop: [ALL] and security_opt: no-new-privileges:true are missing"
    yield from _image(service, folder)
    yield from _network(service, compose["services"])
    yield from _dependencies(service, compose)
    yield from _volumes(service, compose)
    command = service.get("command")
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        yield "command: write it as a list of texts, so that no shell takes it apart"
    else:
        yield from (f"command: {problem}" for problem in command_problems(command))


def _image(service: Mapping[str, Any], folder: Path) -> Iterator[str]:
    image = str(service.get("image", ""))
    if ":" not in image or image.endswith(":latest"):
        yield f"image {image!r} has no tag of its own"
    build = service.get("build")
    if not isinstance(build, dict):
        yield "build: context and dockerfile are missing"
        return
    context = folder / str(build.get("context", ""))
    dockerfile = context / str(build.get("dockerfile", "Dockerfile"))
    if not context.is_dir():
        yield f"build.context {context} is no folder"
    elif not dockerfile.is_file():
        yield f"build.dockerfile {dockerfile} is not there"
    else:
        yield from dockerfile_problems(dockerfile.read_text(encoding="utf-8"), context)


def dockerfile_problems(text: str, context: Path) -> Iterator[str]:
    """Images without a tag, ``COPY`` of what is not there or not sent to the engine, a root user."""
    stages: set[str] = set()
    user = "root"
    for words in _instructions(text):
        match words[0].upper():
            case "FROM":
                if words[1] not in stages and (":" not in words[1] or words[1].endswith(":latest")):
                    yield f"Dockerfile: {words[1]} has no tag"
                if len(words) == 4:
                    stages.add(words[3])
                user = "root"
            case "COPY":
                flags = [word for word in words[1:] if word.startswith("--from=")]
                sources = [word for word in words[1:-1] if not word.startswith("--")]
                if flags and flags[0].removeprefix("--from=") not in stages:
                    yield f"Dockerfile: there is no stage {flags[0].removeprefix('--from=')}"
                for source in [] if flags else sources:
                    if not (context / source).exists() or not _is_sent(source, context):
                        yield f"Dockerfile: {source} is not in the build context"
            case "USER":
                user = words[1]
    if user.split(":")[0] in ("root", "0"):
        yield "Dockerfile: the image runs as root"


def _instructions(text: str) -> Iterator[list[str]]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if words := line.split():
            yield words


def _is_sent(source: str, context: Path) -> bool:
    """Whether ``.dockerignore``, which names what is let in, lets this path in."""
    ignore = context / ".dockerignore"
    if not ignore.is_file() or source == ".":
        return True
    kept = {
        line[1:].strip() for line in ignore.read_text(encoding="utf-8").splitlines() if line.startswith("!")
    }
    return Path(source).parts[0] in kept


def _network(service: Mapping[str, Any], services: Mapping[str, Any]) -> Iterator[str]:
    for port in service.get("ports", []):
        if not _LOOPBACK.match(str(port)):
            yield f"ports: {port} is published beyond loopback; write 127.0.0.1:{port}"
    mode = str(service.get("network_mode", ""))
    if mode == "host":
        yield "network_mode: host puts it on every network of the machine"
    if mode.startswith(_SHARED_NETWORK):
        other = mode.removeprefix(_SHARED_NETWORK)
        if other not in services:
            yield f"network_mode: there is no service {other}"
        elif not set(services[other].get("profiles", [])) >= set(service.get("profiles", [])):
            yield f"network_mode: {other} is not started with all of its profiles"
        if service.get("ports"):
            yield f"ports: publish them at {other}, whose network it shares"


def _dependencies(service: Mapping[str, Any], compose: Mapping[str, Any]) -> Iterator[str]:
    services = compose["services"]
    for other, wanted in dict(service.get("depends_on", {})).items():
        if other not in services:
            yield f"depends_on: there is no service {other}"
            continue
        condition = wanted.get("condition")
        if condition not in _CONDITIONS:
            yield f"depends_on.{other}: {condition!r} is no condition"
        disabled = services[other].get("healthcheck", {}).get("disable", False)
        if condition == "service_healthy" and disabled:
            yield f"depends_on.{other}: it has no health check to wait for"
        if condition == "service_completed_successfully" and services[other].get("restart") != "no":
            yield f"depends_on.{other}: it is started again when it ends"


def _volumes(service: Mapping[str, Any], compose: Mapping[str, Any]) -> Iterator[str]:
    for volume in service.get("volumes", []):
        source = str(volume).split(":", maxsplit=1)[0]
        if "/" in source:
            yield f"volumes: {volume} brings in a folder of the machine"
        elif source not in (compose.get("volumes") or {}):
            yield f"volumes: there is no volume {source}"


def command_problems(command: Sequence[str]) -> list[str]:
    """What the program that ``command`` calls has against its arguments; it is asked, not started."""
    complaints = io.StringIO()
    with contextlib.redirect_stderr(complaints), contextlib.redirect_stdout(complaints):
        try:
            _parse(command)
        except SystemExit as ended:
            if ended.code:
                return [f"{' '.join(command)}: {complaints.getvalue().strip().splitlines()[-1]}"]
        except Exception as refused:  # noqa: BLE001 - whatever a parser raises is its complaint
            return [f"{' '.join(command)}: {refused}"]
    return []


def _parse(command: Sequence[str]) -> None:
    match list(command):
        case ["fermata", "up", *arguments]:
            from fermata.server.up.__main__ import _parser as up_parser
            from fermata.server.up.settings import load_settings

            options = vars(up_parser().parse_args(arguments))
            config = options.pop("config")
            options.pop("json")
            load_settings(options, {}, config)
        case ["fermata", "backup" | "restore", *_]:
            from fermata.server.up.copies import _parser as copies_parser

            copies_parser().parse_args(command[1:])
        case ["fermata", *arguments]:
            parse_fermata(arguments)
        case ["python", "-m", "fermata.agents.factory.plant", *arguments]:
            from fermata.agents.factory.plant import _parser as plant_parser

            plant_parser().parse_args(arguments)
        case ["python", "-m", "fermata.agents.factory.demo", *arguments]:
            from fermata.agents.factory.demo.__main__ import parser as demo_parser

            demo_parser().parse_args(arguments)
        case _:
            raise ValueError("it calls no program of ours")


def parse_fermata(arguments: Sequence[str]) -> None:
    """Parse a command line of ``fermata`` (without that word) as far as its command's own arguments."""
    import typer.main

    from fermata.bots.terminal.app import app

    command: Any = typer.main.get_command(app)
    context = command.make_context("fermata", list(arguments))
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        if not rest and getattr(command, "invoke_without_command", False):
            return
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what is wrong; 0 if nothing is."""
    parser = argparse.ArgumentParser(
        prog="check_compose.py", description="Check a compose file without an engine."
    )
    parser.add_argument("file", nargs="?", type=Path, default=COMPOSE)
    path: Path = parser.parse_args(arguments).file
    found = problems(yaml.safe_load(path.read_text(encoding="utf-8")), path.parent)
    checked = "without an engine"
    told = _ask_docker(path)
    if told is not None:
        checked = "and by docker compose"
        found += told
    for problem in found:
        print(f"{path.name}: {problem}", file=sys.stderr)
    if not found:
        print(f"{path.name}: checked {checked}, nothing is wrong")
    return 1 if found else 0


def _ask_docker(path: Path) -> list[str] | None:
    """What ``docker compose config`` has against the file; None where the plugin is not installed."""
    docker = shutil.which("docker")
    if docker is None:
        return None
    compose = [docker, "compose"]
    if subprocess.run([*compose, "version"], capture_output=True, check=False).returncode:  # noqa: S603 - asks its version
        return None
    told = subprocess.run(  # noqa: S603 - the engine's own check on our own file
        [*compose, "--file", str(path), "--profile", "*", "config", "--quiet"],
        capture_output=True,
        text=True,
        check=False,
    )
    return [f"docker compose config: {told.stderr.strip()}"] if told.returncode else []


if __name__ == "__main__":
    sys.exit(main())
