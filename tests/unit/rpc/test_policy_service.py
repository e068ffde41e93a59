"""The tenant's policy over gRPC."""

from __future__ import annotations

from typing import Any

import pytest

from fermata.v1 import policy_pb2, run_pb2

PARENT = "tenants/default"
NAME = f"{PARENT}/policy"
TEXT = """version: 1
rules:
  - id: no-turning-fast
    match: {tool: turn}
    when: args.speed + 1 > 100
    decide: DENY
    reason: Too fast.
  - id: turning
    match: {effect: UNSAFE}
    decide: REQUIRE_APPROVAL
    approval: {roles: [approver, operator]}
"""


def _update(text: str, etag: str = "", request_id: str = "") -> policy_pb2.UpdatePolicyRequest:
    return policy_pb2.UpdatePolicyRequest(
        policy=policy_pb2.Policy(name=NAME, text=text, etag=etag), request_id=request_id
    )


def _test(tool: str, *, text: str = "", **values: Any) -> policy_pb2.TestPolicyRequest:
    args = values.pop("args", {})
    request = policy_pb2.TestPolicyRequest(parent=PARENT, tool=tool, text=text, **values)
    request.args.update(args)
    return request


async def test_before_it_is_set_the_policy_is_empty(admin: Any) -> None:
    found = await admin.call("PolicyService.GetPolicy", policy_pb2.GetPolicyRequest(name=NAME))
    assert found == policy_pb2.Policy(name=NAME)


async def test_a_policy_is_replaced_and_the_same_text_again_changes_nothing(admin: Any) -> None:
    first = await admin.call("PolicyService.UpdatePolicy", _update(TEXT))
    assert (first.text, first.updated_by) == (TEXT, f"{PARENT}/principals/local")
    assert await admin.call("PolicyService.UpdatePolicy", _update(TEXT)) == first
    second = await admin.call("PolicyService.UpdatePolicy", _update(TEXT + "# more\n", first.etag))
    assert second.etag != first.etag
    found = await admin.call("PolicyService.GetPolicy", policy_pb2.GetPolicyRequest(name=NAME))
    assert found == second


async def test_a_stale_etag_is_refused(admin: Any) -> None:
    first = await admin.call("PolicyService.UpdatePolicy", _update(TEXT))
    await admin.call("PolicyService.UpdatePolicy", _update("version: 1\nrules: []\n"))
    refused = await admin.refusal("PolicyService.UpdatePolicy", _update(TEXT, first.etag))
    assert (refused.code, refused.reason) == ("ABORTED", "ETAG_MISMATCH")
    assert refused.metadata["etag"] != first.etag


async def test_a_malformed_policy_names_the_place_and_changes_nothing(admin: Any) -> None:
    refused = await admin.refusal(
        "PolicyService.UpdatePolicy", _update(TEXT.replace("decide: DENY", "decide: NEVER"))
    )
    assert (refused.code, refused.reason) == ("INVALID_ARGUMENT", "POLICY_MALFORMED")
    assert (refused.metadata["line"], refused.metadata["path"]) == ("6", "rules[0].decide")
    found = await admin.call("PolicyService.GetPolicy", policy_pb2.GetPolicyRequest(name=NAME))
    assert found.text == ""


@pytest.mark.parametrize("name", ["", "tenants/default", "tenants/default/policies/x", "policy"])
async def test_a_policy_has_one_name(admin: Any, name: str) -> None:
    refused = await admin.refusal("PolicyService.GetPolicy", policy_pb2.GetPolicyRequest(name=name))
    assert refused.reason == "INVALID_NAME"


async def test_the_policy_of_another_tenant_is_not_there(admin: Any) -> None:
    request = policy_pb2.GetPolicyRequest(name="tenants/other/policy")
    assert (await admin.refusal("PolicyService.GetPolicy", request)).reason == "OTHER_TENANT"


async def test_a_test_says_which_rule_decides_and_why(admin: Any) -> None:
    await admin.call("PolicyService.UpdatePolicy", _update(TEXT))
    answer = await admin.call("PolicyService.TestPolicy", _test("turn", args={"speed": 10}))
    assert answer.outcome == policy_pb2.POLICY_OUTCOME_REQUIRE_APPROVAL
    assert (answer.rule, list(answer.roles)) == ("turning", ["approver", "operator"])
    assert [(entry.rule, entry.matched) for entry in answer.trace] == [
        ("no-turning-fast", False),
        ("turning", True),
    ]
    # The whole number that a client writes is a whole number for a condition, as it is at the gate.
    denied = await admin.call("PolicyService.TestPolicy", _test("turn", args={"speed": 100}))
    assert (denied.outcome, denied.reason) == (policy_pb2.POLICY_OUTCOME_DENY, "Too fast.")
    assert denied.trace[1].explanation.startswith("An earlier rule has decided.")


async def test_a_text_is_tested_alone(admin: Any) -> None:
    await admin.call("PolicyService.UpdatePolicy", _update(TEXT))
    alone = "version: 1\nrules:\n  - {id: all, decide: ALLOW}\n"
    answer = await admin.call("PolicyService.TestPolicy", _test("turn", text=alone))
    assert (answer.outcome, answer.rule) == (policy_pb2.POLICY_OUTCOME_ALLOW, "all")
    found = await admin.call("PolicyService.GetPolicy", policy_pb2.GetPolicyRequest(name=NAME))
    assert found.text == TEXT


async def test_the_agents_revision_declares_what_the_request_leaves_open(admin: Any, agent: str) -> None:
    read = await admin.call("PolicyService.TestPolicy", _test("look", agent=agent))
    assert (read.outcome, read.rule) == (policy_pb2.POLICY_OUTCOME_ALLOW, "default:read")
    unknown = await admin.call("PolicyService.TestPolicy", _test("look"))
    assert unknown.rule == "default:ask"
    told = await admin.call(
        "PolicyService.TestPolicy", _test("look", agent=agent, effect=run_pb2.EFFECT_CLASS_UNSAFE)
    )
    assert told.rule == "default:ask"


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (_test(""), "TOOL_MISSING"),
        (_test("turn", risk="huge"), "RISK_INVALID"),
        (_test("turn", effect=77), "EFFECT_INVALID"),
        (_test("turn", agent="tenants/default/agents/none"), "AGENT_NOT_FOUND"),
        (_test("turn", agent="tenants/other/agents/none"), "OTHER_TENANT"),
        (_test("turn", text="rules"), "POLICY_MALFORMED"),
        (_test("turn", args={"speed": float("inf")}), "VALUE_INVALID"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused(admin: Any, request_: Any, reason: str) -> None:
    assert (await admin.refusal("PolicyService.TestPolicy", request_)).reason == reason


async def test_an_update_is_remembered_by_its_request_id(admin: Any) -> None:
    first = await admin.call("PolicyService.UpdatePolicy", _update(TEXT, request_id="u1"))
    await admin.call("PolicyService.UpdatePolicy", _update("version: 1\nrules: []\n"))
    assert await admin.call("PolicyService.UpdatePolicy", _update(TEXT, request_id="u1")) == first
    found = await admin.call("PolicyService.GetPolicy", policy_pb2.GetPolicyRequest(name=NAME))
    assert found.text != TEXT
