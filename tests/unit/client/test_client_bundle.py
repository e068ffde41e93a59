"""Agent files: what becomes of them, and how their faults are told."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from fermata.client import LocalError, bundle
from fermata.client.pack import MAX_PACK_BYTES, digest_of, pack_folder
from fermata.client.secrecy import looks_secret
from fermata.v1 import agent_pb2, run_pb2

FULL = """\
name: plant-operator
description: Runs the plant.
graph: ./src/agent.py:graph
models: {planner: "fermata:planner"}
tools: [plant.tools:set_speed, ./src/tools.py:TOOLS]
effects:
  read_line: READ
  set_speed: {effect: UNSAFE, risk: high}
policy: policy.yaml
collections: [manuals]
limits:
  {wall_seconds: 1.5, super_steps: 50, tool_seconds: 30, tool_result_bytes: 65536,
   tool_calls: 40, tokens: 9000, repeated_calls: 5, on_exceeded: halt}
env: {PLANT_URL: "opc.tcp://${PLANT_HOST}:4840", RETRIES: 3, DEBUG: true}
secrets: {OPENAI_API_KEY: env:OPENAI_API_KEY, CERT: file:/etc/plant.pem}
instructions: Be brief.
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "agent.py").write_text("graph = 1\n")
    (tmp_path / "src" / "tools.py").write_text("TOOLS = []\n")
    (tmp_path / "policy.yaml").write_text("rules: []\n")
    (tmp_path / "agent.yaml").write_text(FULL)
    return tmp_path


def malformed(folder: Path, text: str, environment: dict[str, str] | None = None) -> LocalError:
    path = folder / "agent.yaml"
    path.write_text(text)
    with pytest.raises(LocalError) as caught:
        bundle.read(path, environment or {})
    assert caught.value.reason == "AGENT_FILE_MALFORMED"
    assert caught.value.metadata["file"] == str(path)
    assert f"{path}:{caught.value.metadata['line']}" in caught.value.message
    return caught.value


def test_a_full_file_becomes_a_spec_and_a_pack(folder: Path) -> None:
    (found,) = bundle.read(folder, {"PLANT_HOST": "plant"})
    spec = found.spec
    assert found.name == "plant-operator"
    assert spec.graph == "src/agent.py:graph"
    assert list(spec.tools) == ["plant.tools:set_speed", "src/tools.py:TOOLS"]
    assert spec.tool_declarations["read_line"].effect == run_pb2.EFFECT_CLASS_READ
    assert spec.tool_declarations["set_speed"].risk == "high"
    assert spec.policy == "rules: []\n"
    assert spec.limits.wall_time.ToMilliseconds() == 1500
    assert (spec.limits.super_steps, spec.limits.tool_result_bytes) == (50, 65536)
    assert (spec.limits.tool_calls, spec.limits.tokens, spec.limits.repeated_calls) == (40, 9000, 5)
    assert spec.limits.on_exceeded == agent_pb2.ON_EXCEEDED_HALT
    assert dict(spec.environment) == {"PLANT_URL": "opc.tcp://plant:4840", "RETRIES": "3", "DEBUG": "true"}
    assert spec.secrets["OPENAI_API_KEY"] == "env:OPENAI_API_KEY"
    assert spec.pack_digest == digest_of(found.pack)


def test_durability_is_sync_unless_the_file_says_otherwise(folder: Path) -> None:
    assert bundle.read(folder, {"PLANT_HOST": "plant"})[0].spec.durability == agent_pb2.DURABILITY_UNSPECIFIED
    text = "name: op\ngraph: a.b:c\ndurability: "
    (folder / "agent.yaml").write_text(text + "exit\n")
    assert bundle.read(folder / "agent.yaml")[0].spec.durability == agent_pb2.DURABILITY_EXIT
    assert "Write sync" in malformed(folder, text + "never\n").message


def test_a_graph_of_an_installed_package_needs_no_pack(folder: Path) -> None:
    (folder / "agent.yaml").write_text("name: op\ngraph: fermata.agents.graphs.operator:graph\n")
    (found,) = bundle.read(folder / "agent.yaml")
    assert (found.pack, found.spec.pack_digest) == (b"", "")


def test_a_folder_that_is_named_is_packed_for_an_installed_graph_too(folder: Path) -> None:
    (folder / "agent.yaml").write_text("name: op\ngraph: a.b:c\nfolder: src\n")
    (found,) = bundle.read(folder / "agent.yaml")
    assert zipfile.ZipFile(io.BytesIO(found.pack)).namelist() == ["agent.py", "tools.py"]


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("name: op\ngraph: a.b:c\nlimits:\n  steps: 3\n", 4, "limits.steps"),
        ("name: op\ngraph: a.b:c\nlimits:\n  wall_seconds: -1\n", 4, "limits.wall_seconds"),
        ("name: Op!\ngraph: a.b:c\n", 1, "name"),
        ("graph: a.b:c\n", 1, "name"),
        ("name: op\n", 1, "graph"),
        ("name: op\ngraph: nonsense\n", 2, "graph"),
        ("name: op\ngraph: ./missing.py:graph\n", 2, "graph"),
        ("name: op\ngraph: ./../outside.py:graph\n", 2, "graph"),
        ("name: op\ngraph: a.b:c\ntools:\n  - a.b:c\n  - 'no object'\n", 5, "tools.1"),
        ("name: op\ngraph: a.b:c\npolicy: none.yaml\n", 3, "policy"),
        ("name: op\ngraph: a.b:c\nfolder: none\n", 3, "folder"),
        ("name: op\ngraph: a.b:c\neffects:\n  t: WRITE\n", 4, "effects.t"),
        ("name: op\ngraph: a.b:c\nextra: 1\n", 3, "extra"),
        ("name: op\ngraph: a.b:c\nname: other\n", 3, "name"),
        ("name: op\ngraph: a.b:c\nenv:\n  A: ${NOT_SET}\n", 4, "env.A"),
        ("name: op\ngraph: a.b:c\nsecrets:\n  K: sk-live-1\n", 4, "secrets.K"),
        ("name: op\ngraph: a.b:c\nenv:\n  OPENAI_API_KEY: abc\n", 4, "env.OPENAI_API_KEY"),
        ("- a\n- b\n", 1, ""),
        ("", 1, ""),
        ("name: op\ngraph: [\n", 3, ""),
    ],
)
def test_each_fault_names_file_line_and_key(folder: Path, text: str, line: int, key: str) -> None:
    failure = malformed(folder, text)
    assert (failure.metadata["line"], failure.metadata["key"]) == (str(line), key)


def test_a_secret_is_never_repeated_in_its_error(folder: Path) -> None:
    for text in ("secrets:\n  K: sk-abc123\n", "env:\n  K: sk-abc123\n"):
        assert "abc123" not in str(malformed(folder, "name: op\ngraph: a.b:c\n" + text))
    expanded = malformed(folder, "name: op\ngraph: a.b:c\nenv:\n  K: ${HIDDEN}\n", {"HIDDEN": "ghp_abc123"})
    assert "abc123" not in str(expanded)


def test_a_file_that_is_no_text_or_not_there(folder: Path) -> None:
    (folder / "agent.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(LocalError, match="UTF-8"):
        bundle.read(folder / "agent.yaml")
    with pytest.raises(LocalError) as missing:
        bundle.read(folder / "none.yaml")
    assert missing.value.reason == "AGENT_FILE_MISSING"
    with pytest.raises(LocalError, match="holds none of"):
        bundle.read(folder / "src")


def test_a_pack_is_the_same_bytes_for_the_same_content(folder: Path) -> None:
    before = pack_folder(folder)
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    assert pack_folder(folder) == before
    (folder / "src" / "agent.py").write_text("graph = 2\n")
    assert digest_of(pack_folder(folder)) != digest_of(before)


def test_a_pack_leaves_out_what_is_not_the_agents(folder: Path) -> None:
    for name in (".git/config", "__pycache__/a.pyc", ".venv/x.py", "src/b.pyc", ".env", ".env.local"):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    names = zipfile.ZipFile(io.BytesIO(pack_folder(folder))).namelist()
    assert names == ["agent.yaml", "policy.yaml", "src/agent.py", "src/tools.py"]


def test_links_are_refused(folder: Path) -> None:
    (folder / "src" / "link.py").symlink_to("/etc/passwd")
    with pytest.raises(LocalError, match=r"link\.py") as caught:
        pack_folder(folder)
    assert caught.value.reason == "PACK_LINK"


def test_a_folder_that_is_too_large_is_refused_early(folder: Path) -> None:
    with (folder / "data.bin").open("wb") as big:
        big.truncate(MAX_PACK_BYTES + 1)
    with pytest.raises(LocalError, match=r"data\.bin") as caught:
        pack_folder(folder)
    assert caught.value.reason == "PACK_TOO_LARGE"


def test_a_langgraph_file_gives_an_agent_for_each_graph(folder: Path) -> None:
    (folder / ".env").write_text("# keys\nOPENAI_API_KEY=sk-abc\nexport MODE='fast'\n\n")
    content = {
        "dependencies": [".", "langchain_openai", "../lib"],
        "graphs": {
            "agent": "./src/agent.py:graph",
            "My_Other": {"path": "./src/agent.py:graph", "description": "d"},
        },
        "env": ".env",
    }
    (folder / "langgraph.json").write_text(json.dumps(content))
    first, second = bundle.read(folder / "langgraph.json")
    assert (first.name, second.name) == ("agent", "my-other")
    assert first.spec.graph == "src/agent.py:graph"
    assert dict(first.spec.environment) == {"MODE": "fast"}
    assert dict(first.spec.secrets) == {"OPENAI_API_KEY": "env:OPENAI_API_KEY"}
    assert any("langchain_openai" in note for note in first.notes)
    assert any("../lib" in note for note in first.notes)
    assert b"sk-abc" not in first.pack


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("{", 1, ""),
        ("{}", 1, "graphs"),
        ('{\n"graphs": {\n"agent": "./src/agent.js:graph"}}', 3, "graphs.agent"),
        ('{\n"graphs": {\n"agent": "./src/none.py:graph"}}', 3, "graphs.agent"),
        ('{"graphs": {"agent": "./src/agent.py:graph"},\n"env": "none.env"}', 2, "env"),
        ('{"graphs": {"agent": "./src/agent.py:graph"},\n"dependencies": 3}', 2, "dependencies"),
    ],
)
def test_faults_of_a_langgraph_file_are_told(folder: Path, text: str, line: int, key: str) -> None:
    path = folder / "langgraph.json"
    path.write_text(text)
    with pytest.raises(LocalError) as caught:
        bundle.read(path)
    assert caught.value.reason == "AGENT_FILE_MALFORMED"
    assert (caught.value.metadata["line"], caught.value.metadata["key"]) == (str(line), key)


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("OPENAI_API_KEY", "x", True),
        ("DB_PASSWORD", "x", True),
        ("MODE", "sk-abcdef", True),
        ("CERT", "-----BEGIN RSA PRIVATE KEY-----", True),
        ("MODE", "fast", False),
        ("SORT_KEY", "name", False),
        ("OPENAI_API_KEY", "", False),
    ],
)
def test_what_looks_like_a_secret(name: str, value: str, secret: bool) -> None:
    assert looks_secret(name, value) is secret
