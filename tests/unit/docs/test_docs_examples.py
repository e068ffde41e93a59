"""Every example in README and docs is what the product itself understands."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from langchain_core.tools import BaseTool
from tests.unit.docs.fences import KINDS, PAGES, ROOT, Fence, fences, the_project

from fermata.client import bundle
from fermata.server.knowledge.chunking import read_document
from fermata.server.policy import Call, Requester, evaluate, parse_policy
from fermata.server.principals.rights import RIGHTS
from fermata.server.store.migrate import migrate
from fermata.server.up.settings import UpSettings

MAX_WIDTH = 120


def _check_compose() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_compose", ROOT / "deploy" / "check_compose.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


check = _check_compose()


def commands() -> Iterator[tuple[Fence, list[str]]]:
    """Every command line in the examples, without its comment."""
    for fence in fences("sh"):
        for line in fence.code.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield fence, words


def test_every_example_is_of_a_kind_that_is_tested() -> None:
    assert {fence.kind for fence in fences()} <= KINDS


@pytest.mark.parametrize(
    ("fence", "words"), list(commands()), ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_command_is_understood(fence: Fence, words: list[str]) -> None:
    match words:
        case ["make", *targets]:
            rules = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
            assert set(targets) <= set(rules)
        case ["fermata", *_]:
            assert check.command_problems(words) == [], str(fence)
        case ["docker", "build", *options]:
            assert (ROOT / options[options.index("--file") + 1]).is_file()
        case ["docker", "compose", "--file", path, *rest]:
            compose = yaml.safe_load((ROOT / path).read_text("utf-8"))
            assert set(rest) & (set(compose["services"]) | {"up"})
            if "exec" in rest:
                assert check.command_problems(rest[rest.index("exec") + 2 :]) == []
        case [".venv/bin/python", path, *_]:
            assert (ROOT / path).is_file()
        case ["source", ".venv/bin/activate"] | ["openssl", *_]:
            pass
        case _:
            pytest.fail(f"{fence}: {words[0]} is not among the programs that examples call")


def test_the_commands_of_backup_and_restore_do_what_the_page_says(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    migrate(data / "fermata.db")
    run = [
        words
        for fence, words in commands()
        if fence.page.name == "operating.md" and words[1] in ("backup", "restore")
    ]
    assert [words[1] for words in run] == ["backup", "restore", "restore"]
    for words in run:
        done = subprocess.run(
            [sys.executable, "-m", "fermata.bots.terminal.main", *words[1:]],
            cwd=tmp_path,
            env={**os.environ, "FERMATA_DATA": str(data)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
    assert (tmp_path / "monday.db").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "restored" / "fermata.db").exists()
    assert len(list(data.glob("before-restore-*/fermata.db"))) == 1


@pytest.mark.parametrize("fence", fences("yaml policy.yaml"), ids=str)
def test_a_policy_is_read(fence: Fence) -> None:
    assert parse_policy(fence.code).rules


def test_the_policy_of_the_readme_decides_as_it_says() -> None:
    (fence,) = [fence for fence in fences("yaml policy.yaml") if fence.page.name == "README.md"]
    policy = parse_policy(fence.code)
    requester = Requester("tenants/default/principals/local", ("operator",))
    outcomes = [
        evaluate(
            policy, Call("order_parts", {"pieces": n}, "stock", "1", "UNSAFE", "", (), requester)
        ).outcome.value
        for n in (10, 11)
    ]
    assert outcomes == ["ALLOW", "REQUIRE_APPROVAL"]


@pytest.mark.parametrize("fence", fences("yaml agent.yaml"), ids=str)
def test_an_agent_file_is_read(fence: Fence, tmp_path: Path) -> None:
    the_project(tmp_path)
    (tmp_path / "agent.yaml").write_text(fence.code, "utf-8")
    (agent,) = bundle.read(tmp_path / "agent.yaml", {"LANG": "en"})
    assert agent.name == "stock"
    assert agent.pack


def test_the_agent_file_of_the_reference_shows_every_key_but_those_of_the_built_in_agent() -> None:
    from fermata.client.agent_file import AgentFile

    (fence,) = [fence for fence in fences("yaml agent.yaml") if fence.page.name == "agents.md"]
    assert set(AgentFile.model_fields) - set(yaml.safe_load(fence.code)) == {"tools", "instructions"}


@pytest.mark.parametrize("fence", fences("json langgraph.json"), ids=str)
def test_a_langgraph_file_is_read(fence: Fence, tmp_path: Path) -> None:
    (tmp_path / "greeter.py").touch()
    (tmp_path / "langgraph.json").write_text(fence.code, "utf-8")
    (agent,) = bundle.read(tmp_path / "langgraph.json", {})
    assert agent.spec.graph == "greeter.py:graph"


@pytest.mark.parametrize("fence", fences("toml fermata.toml"), ids=str)
def test_a_configuration_is_accepted_and_shows_the_defaults(fence: Fence) -> None:
    written = tomllib.loads(fence.code)
    settings = UpSettings.model_validate(written)
    for name in written:
        field = UpSettings.model_fields[name]
        if field.default_factory is None:
            assert getattr(settings, name) == field.default, name
    commented = re.findall(r"^# (\w+) =", fence.code, re.MULTILINE)
    assert set(commented) <= set(UpSettings.model_fields)


def test_every_setting_is_in_the_table() -> None:
    page = (ROOT / "docs" / "operating.md").read_text("utf-8")
    for name in UpSettings.model_fields:
        assert f"--{name.replace('_', '-')}`" in page, name


@pytest.mark.parametrize("fence", fences("markdown runbook"), ids=str)
def test_a_runbook_is_read_with_its_steps(fence: Fence) -> None:
    document = read_document("runbooks/example.md", fence.code.encode())
    assert any(chunk.steps for chunk in document.chunks)


@pytest.mark.parametrize(
    "fence", [*fences("python stock.py"), *fences("python greeter.py"), *fences("python tool")], ids=str
)
def test_a_module_loads_and_declares_its_tools(fence: Fence) -> None:
    names: dict[str, Any] = {"__name__": "example"}
    exec(compile(fence.code, str(fence), "exec"), names)
    declared = [tool for tool in names.values() if isinstance(tool, BaseTool) and tool.metadata]
    assert names.get("graph") is not None or all(
        "fermata.effect" in (tool.metadata or {}) for tool in declared
    )
    assert names.get("graph") is not None or declared


@pytest.mark.parametrize("fence", fences("python run"), ids=str)
def test_a_program_compiles(fence: Fence) -> None:
    compile(fence.code, str(fence), "exec")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_reasons_and_paths_that_are_named_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    sources = "\n".join(
        path.read_text("utf-8")
        for root in ("server", "agents", "bots", "protos")
        for path in (ROOT / root).rglob("*")
        if path.suffix in (".py", ".proto")
    )
    for name in set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text)):
        assert re.search(rf"(\b|_){name}\b", sources), name
    for path in re.findall(r"`((?:deploy|tests|agents|server|bots|protos|docs)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_table_of_roles_is_that_of_the_server() -> None:
    from fermata.v1 import principal_pb2

    page = (ROOT / "docs" / "operating.md").read_text("utf-8")
    roles = {name.removeprefix("ROLE_").lower() for name, value in principal_pb2.Role.items() if value}
    assert set(re.findall(r"^\| (\w+) \| ", page, re.MULTILINE)) >= roles
    admin_only = {method for method, wanted in RIGHTS.items() if not wanted}
    assert {
        "AgentService.ApplyAgent",
        "PolicyService.UpdatePolicy",
        "PrincipalService.CreatePrincipal",
    } <= admin_only


def test_the_table_of_commands_names_every_command() -> None:
    import typer.main

    from fermata.bots.terminal.app import app

    page = (ROOT / "README.md").read_text("utf-8")
    table = page[page.index("### Commands") : page.index("### Halting")]
    group: Any = typer.main.get_command(app)
    for name in group.commands:
        assert re.search(rf"(?<![\w-]){name}(?![\w-])", table), name


def test_the_exit_codes_are_those_of_the_program() -> None:
    from fermata.bots.terminal import exits

    page = (ROOT / "README.md").read_text("utf-8")
    listed = page[page.index("Exit codes:") : page.index("### Halting")]
    for name in (
        "OK",
        "FAILED",
        "USAGE",
        "NOT_FOUND",
        "CONFLICT",
        "DENIED",
        "UNAVAILABLE",
        "WAITING",
        "INTERRUPTED",
    ):
        assert re.search(rf"\b{getattr(exits, name)}\b", listed), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_can_be_read_in_an_editor(page: Path) -> None:
    long = [
        n
        for n, line in enumerate(page.read_text("utf-8").splitlines(), 1)
        if len(line) > MAX_WIDTH and "|" not in line
    ]
    assert long == []


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "docs").glob("*.svg"))], ids=lambda page: page.name)
def test_nothing_of_the_machine_that_it_was_made_on_is_in_it(page: Path) -> None:
    text = page.read_text("utf-8")
    assert not re.search(r"/root/|/home/(?!fermata)|/work/|(?<![\w.])/tmp/(?!fermata-)", text)


def test_every_test_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "README.md").read_text("utf-8")))
    known = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert len(named) > 10
    assert sorted(named - known) == []
