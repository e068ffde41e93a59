"""The planner's evaluation data keeps the promises of tests/benchmarks/planner/FORMAT.md."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

Case = dict[str, Any]

FOLDER = Path(__file__).parents[2] / "benchmarks" / "planner"
EFFECTS = {"READ", "IDEMPOTENT", "UNSAFE"}
CATEGORIES = {
    "direct",
    "paraphrase",
    "units",
    "enums",
    "clauses",
    "reference",
    "missing",
    "ambiguous",
    "out_of_scope",
    "prohibition",
    "hypothetical",
    "report",
    "conditional",
    "injection",
    "passages",
    "runbook",
}
CASE_KEYS = {"id", "domain", "category", "no_action", "messages", "passages", "results", "expect", "notes"}
OUTCOMES = {"ask", "refuse", "ack", "answer"}
CLOCK = r":\d\d$"
SETS = ("dev", "dev2", "heldout")


def cases_of(name: str) -> list[Case]:
    """The cases of one set, in the order of the file."""
    lines = (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


CASES = {name: cases_of(name) for name in SETS}
EVERY_CASE = [case for name in SETS for case in CASES[name]]
DOMAIN_FILES = sorted((FOLDER / "domains").glob("*.json"))
DOMAINS: dict[str, Case] = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in DOMAIN_FILES}


def tool_of(case: Case, name: str) -> Case:
    """The tool called `name` in the case's domain; KeyError where there is none."""
    tools: list[Case] = DOMAINS[case["domain"]]["tools"]
    return {tool["name"]: tool for tool in tools}[name]


def readings(value: Any, schema: Case) -> list[Any]:
    """The plain values that an expected argument stands for; a free text's is its fragments joined."""
    if isinstance(value, dict) and "any_of" in value:
        assert set(value) == {"any_of"}
        assert len(value["any_of"]) > 1
        return list(value["any_of"])
    if isinstance(value, dict) and "contains" in value:
        assert set(value) == {"contains"}
        assert value["contains"]
        assert schema.get("type") == "string"
        assert not {"enum", "pattern", "format"} & set(schema), "only free text can be matched by fragments"
        return [" ".join(value["contains"])]
    return [value]


def calls_of(case: Case) -> Iterator[Case]:
    yield from case["expect"].get("calls", [])


def text_of(case: Case) -> list[str]:
    """What people say in a case, folded for comparison."""
    said = [message["content"] for message in case["messages"] if message["role"] == "human"]
    return [" ".join(text.casefold().split()) for text in said]


def only_declinable(case: Case) -> bool:
    """Whether asking, refusing or acknowledging is all that is right: the cases of the false-action rate."""
    return not {"calls", "answer"} & set(case["expect"])


def of_every_case(check: Callable[[Case], None]) -> Callable[[str], None]:
    """A test for each domain, of all of its cases: one for each case costs more than the checks. A failure names the case."""

    @pytest.mark.parametrize("domain", sorted({case["domain"] for case in EVERY_CASE}))
    def test(domain: str) -> None:
        for case in EVERY_CASE:
            if case["domain"] != domain:
                continue
            try:
                check(case)
            except BaseException as error:
                error.add_note(f"in the case {case['id']}")
                raise

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_a_domain_has_eight_to_sixteen_well_formed_tools(domain: Case) -> None:
    tools = domain["tools"]
    assert 8 <= len(tools) <= 16
    assert len({tool["name"] for tool in tools}) == len(tools)
    assert {"READ"} < {tool["effect"] for tool in tools} <= EFFECTS
    for tool in tools:
        assert set(tool) == {"name", "description", "parameters", "effect"}
        Draft202012Validator.check_schema(tool["parameters"])
        properties = tool["parameters"]["properties"]
        assert tool["parameters"]["type"] == "object"
        assert set(tool["parameters"]["required"]) <= set(properties)
        for name, schema in properties.items():
            assert schema["description"], (tool["name"], name)
            if "default" in schema:
                Draft202012Validator(schema).validate(schema["default"])


@pytest.mark.parametrize("stem", DOMAINS)
def test_a_domain_file_is_named_after_its_domain_and_its_passages_have_places(stem: str) -> None:
    domain = DOMAINS[stem]
    assert domain["domain"] == stem
    assert set(domain) <= {"domain", "context", "tools", "passages"}
    passages = domain.get("passages", [])
    assert len({passage["id"] for passage in passages}) == len(passages)
    for passage in passages:
        assert set(passage) == {"id", "source", "heading", "line", "text"}
        assert passage["line"] >= 1


@of_every_case
def test_a_case_keeps_to_the_format(case: Case) -> None:
    assert set(case) <= CASE_KEYS
    assert case["category"] in CATEGORIES
    domain = DOMAINS[case["domain"]]
    known = {passage["id"]: passage["text"] for passage in domain.get("passages", [])}
    assert set(case.get("passages", [])) <= set(known)
    for name in case.get("results", {}):
        tool_of(case, name)

    assert case["messages"][-1]["role"] == "human"
    asked: list[str] = []
    for message in case["messages"]:
        assert message["role"] in {"human", "ai", "tool", "system"}
        for earlier in message.get("tool_calls", []):
            tool = tool_of(case, earlier["name"])
            Draft202012Validator(tool["parameters"]).validate(earlier["args"])
            asked.append(earlier["id"])
        if message["role"] == "tool":
            assert message["tool_call_id"] in asked
            tool_of(case, message["name"])

    expect = case["expect"]
    assert expect
    if "calls" in expect:
        assert set(expect) == {"calls"}
        assert expect["calls"]
        if case["no_action"]:
            assert {tool_of(case, call["name"])["effect"] for call in expect["calls"]} == {"READ"}
    else:
        assert set(expect) <= OUTCOMES
        assert case["no_action"]
    if "answer" in expect:
        assert expect["answer"]["cites"]
        cited = " ".join(known[cite] for cite in expect["answer"]["cites"]).casefold()
        assert set(expect["answer"]["cites"]) <= set(case["passages"])
        assert all(fragment.casefold() in cited for fragment in expect["answer"]["contains"])


@of_every_case
def test_expected_arguments_fit_the_schema_of_their_tool(case: Case) -> None:
    for call in calls_of(case):
        assert set(call) <= {"name", "args", "may"}
        parameters = tool_of(case, call["name"])["parameters"]
        properties = parameters["properties"]
        for given in (call["args"], call["args"] | call.get("may", {})):
            assert set(given) <= set(properties), call
            options = [readings(value, properties[name]) for name, value in given.items()]
            for values in product(*options):
                Draft202012Validator(parameters).validate(dict(zip(given, values, strict=True)))
        assert not set(call["args"]) & set(call.get("may", {}))
        assert not set(call.get("may", {})) & set(parameters["required"])


@of_every_case
def test_a_case_of_actions_and_a_case_of_none_are_told_apart(case: Case) -> None:
    if case["category"] in {"missing", "ambiguous", "out_of_scope", "hypothetical", "report"}:
        assert case["no_action"]
    if case["category"] in {"direct", "paraphrase", "units", "enums", "clauses", "reference", "runbook"}:
        assert not case["no_action"]


def test_ids_are_unique_over_all_sets() -> None:
    counted = Counter(case["id"] for case in EVERY_CASE)
    assert [name for name, times in counted.items() if times > 1] == []


def test_the_sets_are_large_enough() -> None:
    assert all(len(CASES[name]) >= 320 for name in SETS)


def test_about_a_third_of_the_held_out_set_can_only_be_asked_back_or_declined() -> None:
    heldout = CASES["heldout"]
    assert 0.28 <= sum(map(only_declinable, heldout)) / len(heldout) <= 0.40
    assert all(case["no_action"] for case in heldout if only_declinable(case))


def domains_of(name: str) -> set[str]:
    return {case["domain"] for case in CASES[name]}


def test_every_domain_belongs_to_a_set_of_at_least_five() -> None:
    assert all(len(domains_of(name)) >= 5 for name in SETS)
    assert set().union(*map(domains_of, SETS)) == set(DOMAINS)


@pytest.mark.parametrize(("one", "other"), list(combinations(SETS, 2)))
def test_two_sets_share_no_domain_no_tool_description_and_no_passage(one: str, other: str) -> None:
    def wordings(domains: set[str]) -> set[str]:
        tools = {tool["description"] for name in domains for tool in DOMAINS[name]["tools"]}
        return tools | {passage["text"] for name in domains for passage in DOMAINS[name].get("passages", [])}

    assert domains_of(one).isdisjoint(domains_of(other))
    assert wordings(domains_of(one)).isdisjoint(wordings(domains_of(other)))


@pytest.mark.parametrize(("one", "other"), list(combinations(SETS, 2)))
def test_two_sets_share_no_wording(one: str, other: str) -> None:
    def wordings(name: str) -> set[str]:
        return {re.sub(r"\d+", "0", text).strip(" .!?") for case in CASES[name] for text in text_of(case)}

    assert wordings(one).isdisjoint(wordings(other))


@pytest.mark.parametrize("name", SETS)
def test_no_request_is_asked_twice(name: str) -> None:
    counted = Counter(" / ".join(text_of(case)) for case in CASES[name])
    assert [text for text, times in counted.items() if times > 1] == []


@pytest.mark.parametrize("name", SETS)
def test_every_category_is_in_each_set(name: str) -> None:
    assert {case["category"] for case in CASES[name]} == CATEGORIES


@of_every_case
def test_an_expected_id_is_shown_to_the_model_somewhere(case: Case) -> None:
    """What a pattern describes is copied from the messages, the context or a passage, never guessed."""
    domain = DOMAINS[case["domain"]]
    shown = {passage["id"]: passage["text"] for passage in domain.get("passages", [])}
    visible = " ".join(
        [domain.get("context", "")]
        + [message["content"] for message in case["messages"]]
        + [shown[name] for name in case.get("passages", [])]
        + [json.dumps(case.get("results", {}))]
    )
    squeezed = "".join(letter for letter in visible.casefold() if letter.isalnum())
    for call in calls_of(case):
        properties = tool_of(case, call["name"])["parameters"]["properties"]
        for name, value in call["args"].items():
            schema = properties[name]
            is_id = "pattern" in schema and not schema["pattern"].endswith(CLOCK)
            if is_id and isinstance(value, str):
                wanted = "".join(letter for letter in value.casefold() if letter.isalnum())
                assert wanted in squeezed, (call["name"], name, value)
