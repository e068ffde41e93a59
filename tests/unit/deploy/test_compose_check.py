"""The compose file and its check: our file is right, and each slip is found."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from fermata.agents.factory.opcua import PLANT_PATH

DEPLOY = Path(__file__).parents[3] / "deploy"


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_compose", DEPLOY / "check_compose.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


check = _module()


@pytest.fixture
def compose() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))


def test_our_file_has_no_problems(compose: Any) -> None:
    assert check.problems(compose, DEPLOY) == []


def test_the_agent_is_told_the_address_that_the_plant_serves(compose: Any) -> None:
    port = next(w for w in compose["services"]["plant"]["command"] if w.startswith("--port=")).removeprefix(
        "--port="
    )
    url = compose["services"]["agent"]["environment"]["FERMATA_PLANT_URL"]
    assert url == f"opc.tcp://127.0.0.1:{port}{PLANT_PATH}"


def test_the_files_that_commands_name_are_in_the_image(compose: Any) -> None:
    copied = DEPLOY.parent / "agents/fermata/agents/factory"
    assert f"COPY {copied.relative_to(DEPLOY.parent)} /srv/factory" in (DEPLOY / "Dockerfile").read_text(
        "utf-8"
    )
    words = [word for service in compose["services"].values() for word in service["command"]]
    named = [word for word in words if word.startswith("/srv/factory/")]
    assert named
    for word in named:
        assert (copied / word.removeprefix("/srv/factory/")).exists(), word


SLIPS: dict[str, tuple[Callable[[Any], object], str]] = {
    "a published port": (lambda s: s["fermata"].update(ports=["7433:7433"]), "beyond loopback"),
    "a port of a shared network": (
        lambda s: s["plant"].update(ports=["127.0.0.1:4840:4840"]),
        "whose network",
    ),
    "privileged": (lambda s: s["plant"].update(privileged=True), "rights that nothing here needs"),
    "all capabilities": (lambda s: s["plant"].pop("cap_drop"), "cap_drop"),
    "the tag latest": (lambda s: s["plant"].update(image="fermata:latest"), "no tag of its own"),
    "the machine's network": (lambda s: s["plant"].update(network_mode="host"), "every network"),
    "an unknown network": (lambda s: s["plant"].update(network_mode="service:factory"), "no service factory"),
    "an unknown dependency": (lambda s: s["agent"]["depends_on"].update(db={}), "no service db"),
    "an unknown condition": (
        lambda s: s["agent"]["depends_on"]["plant"].update(condition="ready"),
        "no condition",
    ),
    "nothing to wait for": (
        lambda s: s["agent"]["depends_on"]["knowledge"].update(condition="service_healthy"),
        "no health check",
    ),
    "a wait without end": (lambda s: s["knowledge"].update(restart="always"), "started again"),
    "an unknown volume": (lambda s: s["fermata"].update(volumes=["store:/data"]), "no volume store"),
    "a folder of the machine": (
        lambda s: s["fermata"].update(volumes=["/home:/data"]),
        "folder of the machine",
    ),
    "a missing Dockerfile": (
        lambda s: s["plant"]["build"].update(dockerfile="Dockerfile.plant"),
        "is not there",
    ),
    "a misspelt key": (lambda s: s["plant"].update(comand=[]), "comand"),
    "a shell command": (lambda s: s["plant"].update(command="python -m x"), "list of texts"),
    "an unknown option of up": (lambda s: s["fermata"]["command"].append("--colour=red"), "--colour"),
    "a value that up refuses": (lambda s: s["fermata"]["command"].append("--port=99999"), "--port"),
    "an unknown command": (lambda s: s["agent"].update(command=["fermata", "agnets"]), "agnets"),
    "an unknown option of a command": (lambda s: s["knowledge"]["command"].append("--into=x"), "--into"),
    "a missing argument": (lambda s: s["agent"].update(command=["fermata", "agents", "apply"]), "apply"),
    "an unknown scenario": (lambda s: s["plant"]["command"].append("--scenario=fire"), "fire"),
    "an unknown option of the demo": (lambda s: s["demo"]["command"].append("--fast"), "--fast"),
    "a program that is not ours": (
        lambda s: s["demo"].update(command=["sh", "-c", "true"]),
        "no program of ours",
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_found(compose: Any, slip: str) -> None:
    # The services share nothing by reference, or one slip would be made in all of them.
    services = {
        name: yaml.safe_load(yaml.safe_dump(service)) for name, service in compose["services"].items()
    }
    make, complaint = SLIPS[slip]
    make(services)
    found = check.problems({**compose, "services": services}, DEPLOY)
    assert any(complaint in problem for problem in found), found


DOCKERFILES = {
    "FROM python:latest\nUSER 1\n": "has no tag",
    "FROM python:3.12-slim\n": "runs as root",
    "FROM python:3.12-slim\nUSER 0:0\n": "runs as root",
    "FROM python:3.12-slim\nCOPY --from=builder /a /a\nUSER 1\n": "no stage builder",
    "FROM python:3.12-slim\nCOPY setup.cfg ./\nUSER 1\n": "setup.cfg is not in the build context",
    "FROM python:3.12-slim\nCOPY tests ./\nUSER 1\n": "tests is not in the build context",
}


@pytest.mark.parametrize("text", DOCKERFILES)
def test_a_slip_in_the_dockerfile_is_found(text: str) -> None:
    assert any(DOCKERFILES[text] in problem for problem in check.dockerfile_problems(text, DEPLOY.parent))


def test_our_dockerfile_has_no_problems() -> None:
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert list(check.dockerfile_problems(text, DEPLOY.parent)) == []


@pytest.mark.parametrize(
    "line",
    ["runs --state awaiting --json", "policy test set_speed line=line-3 rpm=1200", "agents", "halt --all -y"],
)
def test_a_command_line_as_people_write_it_is_understood(line: str) -> None:
    assert check.command_problems(["fermata", *shlex.split(line)]) == []


def test_the_program_says_what_is_wrong_and_exits_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "compose.yaml").write_text("services: {}\n", "utf-8")
    assert check.main([str(tmp_path / "compose.yaml")]) == 1
    assert "services: there are none" in capsys.readouterr().err
