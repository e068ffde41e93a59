"""Graphs and tools by name, secrets by reference, models by name."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from langgraph.pregel import Pregel

from fermata.agents.inference.chat import chat_model
from fermata.agents.runtime import context
from fermata.agents.runtime.environment import add_secrets, host_environment
from fermata.agents.runtime.errors import GraphInvalidError, ModelUnavailableError, SecretMissingError
from fermata.agents.runtime.loader import load_graph, load_tools
from fermata.v1 import agent_pb2

GRAPH = '''
from langgraph.graph import START, MessagesState, StateGraph
from helper_of_pack import ANSWER

async def act(state: MessagesState):
    return {"messages": []}

def build() -> StateGraph:
    graph = StateGraph(MessagesState)
    graph.add_node("act", act)
    graph.add_edge(START, "act")
    return graph

builder = build()
compiled = builder.compile()

def factory():
    return build().compile()

def with_config(config):
    assert "configurable" in config
    return build()

async def later(config):
    return build().compile()

def broken():
    raise RuntimeError("no database")

def greedy(a, b):
    return None

number = 3
unfinished = StateGraph(MessagesState)

def shout(text: str) -> str:
    """Shouts."""
    return text.upper()
'''


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "flow.py").write_text(GRAPH)
    (tmp_path / "helper_of_pack.py").write_text("ANSWER = 42\n")
    (tmp_path / "bad_import.py").write_text("import surely_not_installed\n")
    (tmp_path / "bad_code.py").write_text("value = 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if "flow" in name or "of_pack" in name or name.startswith("bad_"):
            del sys.modules[name]
    context.serve_spec(None)


def spec(graph: str) -> agent_pb2.AgentSpec:
    return agent_pb2.AgentSpec(graph=graph)


@pytest.mark.parametrize("name", ["builder", "compiled", "factory", "with_config", "later", "build"])
def test_whatever_langgraph_json_allows_is_loaded(pack: Path, name: str) -> None:
    graph = load_graph(spec(f"agents/flow.py:{name}"), str(pack))
    assert isinstance(graph, Pregel)
    assert "act" in graph.nodes


def test_a_module_of_the_pack_is_loaded_by_its_name(pack: Path) -> None:
    assert "act" in load_graph(spec("agents.flow:compiled"), str(pack)).nodes


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("flow", "is not of the form"),
        ("agents/flow.py:nothing", "no attribute 'nothing'. It has: "),
        ("agents/other.py:graph", r"agents/other.py was not found"),
        ("no_such_module:graph", "'no_such_module' was not found"),
        ("bad_import:graph", "'surely_not_installed', which is not installed"),
        ("bad_code:graph", "raised at import: ZeroDivisionError"),
        ("agents/flow.py:number", "is a int, and must be"),
        ("agents/flow.py:unfinished", "can't be compiled"),
        ("agents/flow.py:broken", "raised RuntimeError: no database"),
        ("agents/flow.py:greedy", "wants 2 arguments"),
    ],
)
def test_what_is_wrong_with_a_graph_is_said(pack: Path, name: str, said: str) -> None:
    with pytest.raises(GraphInvalidError, match=said) as refused:
        load_graph(spec(name), str(pack))
    assert refused.value.reason == "GRAPH_INVALID"


def test_the_traceback_of_an_import_is_its_detail(pack: Path) -> None:
    with pytest.raises(GraphInvalidError) as refused:
        load_graph(spec("bad_code:graph"), str(pack))
    assert "value = 1 / 0" in refused.value.detail


def test_tools_of_the_agent_file_are_loaded_functions_included(pack: Path) -> None:
    load_graph(spec("agents/flow.py:compiled"), str(pack))
    found = load_tools(agent_pb2.AgentSpec(tools=["agents/flow.py:shout"]))
    assert [tool.name for tool in found] == ["shout"]
    with pytest.raises(GraphInvalidError, match="must be a LangChain tool"):
        load_tools(agent_pb2.AgentSpec(tools=["agents/flow.py:number"]))


def test_secrets_come_by_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("from a file\n")
    monkeypatch.setenv("SOURCE", "from the environment")
    monkeypatch.setenv("KEY_A", "")
    monkeypatch.setenv("KEY_B", "")
    add_secrets(agent_pb2.AgentSpec(secrets={"KEY_A": "env:SOURCE", "KEY_B": f"file:{tmp_path}/key"}))
    assert os.environ["KEY_A"] == "from the environment"
    assert os.environ["KEY_B"] == "from a file"


@pytest.mark.parametrize(
    "reference", ["env:NOT_THERE", "file:/not/there", "plain", "env:FERMATA_TOKEN_WORKER"]
)
def test_a_missing_secret_names_its_reference(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FERMATA_TOKEN_WORKER", "never told")
    with pytest.raises(SecretMissingError, match="KEY") as refused:
        add_secrets(agent_pb2.AgentSpec(secrets={"KEY": reference}))
    assert reference in str(refused.value)
    assert "never told" not in str(refused.value)


def test_hosts_inherit_no_credentials() -> None:
    inherited = {
        "PATH": "/bin",
        "FERMATA_TOKEN": "t",
        "FERMATA_TOKEN_BOT": "t",
        "RAY_ADDRESS": "r",
        "HOME": "/h",
    }
    found = host_environment(agent_pb2.AgentSpec(environment={"MODE": "fast"}), inherited)
    assert found["PATH"] == "/bin"
    assert found["MODE"] == "fast"
    assert not {name for name in found if name.startswith(("FERMATA_", "RAY_"))}


def test_hosts_report_nothing_to_the_makers_of_libraries_unless_the_agent_file_says_so() -> None:
    assert host_environment(agent_pb2.AgentSpec(), {})["ORT_DISABLE_TELEMETRY"] == "1"
    chosen = agent_pb2.AgentSpec(environment={"ORT_DISABLE_TELEMETRY": "0"})
    assert host_environment(chosen, {})["ORT_DISABLE_TELEMETRY"] == "0"


def test_models_by_name_go_through_the_agent_file() -> None:
    context.serve_spec(agent_pb2.AgentSpec(models={"planner": "fermata:planner", "big": "openai:gpt-5"}))
    try:
        assert chat_model("planner")._llm_type == "fermata:planner"
        with pytest.raises(ModelUnavailableError) as refused:
            chat_model("nonsense")
        assert refused.value.reason == "MODEL_UNKNOWN"
        assert "big, planner" in str(refused.value)
    finally:
        context.serve_spec(None)
    assert chat_model("fermata:planner")._llm_type == "fermata:planner"
