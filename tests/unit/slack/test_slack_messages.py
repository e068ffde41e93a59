"""Every message is one that Slack takes, whatever agents, tools and documents put into it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block as SdkBlock
from slack_sdk.models.views import View

from fermata.bots.conversation.cards import REDACTED, Card, card_of, secrets_of
from fermata.bots.conversation.editing import EditError
from fermata.bots.conversation.reducer import apply
from fermata.bots.conversation.view import Citation, Conversation, LatchEntry, Message, ToolStep
from fermata.bots.slack import blocks, cards, home, messages, modals
from fermata.bots.slack.shown import Shown
from fermata.client.values import to_struct, to_value
from fermata.v1 import agent_pb2, approval_pb2, latch_pb2, run_pb2

RUN = "tenants/default/runs/r1"
HOSTILE = [
    "<!channel> <@U1> <https://evil.example|click here> &lt;",
    "*bold* _it_ ~no~ `code` ```fence``` > quote",
    "a\x00b\u202ec\u200d",
    "😀" * 4000,
    " ",
    "",
    "\n" * 500,
]
TEXTS = st.one_of(
    st.sampled_from(HOSTILE), st.text(max_size=80), st.text(max_size=40).map(lambda text: text * 300)
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)
ARGUMENTS = st.dictionaries(
    st.one_of(st.text(min_size=1, max_size=200), st.sampled_from(["line", "rpm"])), VALUES, max_size=40
)
KINDS = st.sampled_from([value for value in approval_pb2.ApprovalKind.values() if value])
STATES = st.sampled_from([value for value in approval_pb2.ApprovalState.values() if value])
SLOW = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def _approval(**values: Any) -> approval_pb2.Approval:
    given_args = values.pop("args", {"line": "line-3", "rpm": 1200})
    schema = values.pop("schema", None)
    question = values.pop("question", None)
    wanted: dict[str, Any] = {
        "name": "tenants/default/approvals/a1",
        "run": RUN,
        "agent": "tenants/default/agents/operator",
        "kind": approval_pb2.APPROVAL_KIND_ACTION,
        "state": approval_pb2.APPROVAL_STATE_PENDING,
        "tool": "set_speed",
        "digest": "ab" * 32,
        "allowed_decisions": [
            approval_pb2.DECISION_APPROVE,
            approval_pb2.DECISION_EDIT,
            approval_pb2.DECISION_REJECT,
        ],
    }
    approval = approval_pb2.Approval(**(wanted | values))
    approval.args.CopyFrom(to_struct(given_args))
    if schema is not None:
        approval.args_schema.CopyFrom(to_struct(schema))
    if question is not None:
        approval.question.CopyFrom(to_value(question))
    return approval


def require_valid(shown: Shown) -> None:
    """The SDK's own validation, and the limits that it does not know."""
    drawn = shown.marked
    assert 1 <= len(drawn) <= blocks.MAX_BLOCKS
    assert 1 <= len(shown.fallback) <= 4000
    require_valid_blocks(drawn)


def require_valid_blocks(drawn: list[dict[str, Any]]) -> None:
    parsed = SdkBlock.parse_all(drawn)
    assert len(parsed) == len(drawn)
    for one in parsed:
        one.validate_json()
    for text in _objects(drawn):
        assert 1 <= blocks.length(text["text"]) <= blocks.MAX_TEXT
        assert text["text"].strip()
    for block in drawn:
        assert len(block.get("block_id", "")) <= 255
        assert len(block.get("fields", [])) <= blocks.MAX_FIELDS
        assert all(blocks.length(one["text"]) <= blocks.MAX_FIELD for one in block.get("fields", []))


def require_valid_view(view: dict[str, Any]) -> None:
    View(**json.loads(json.dumps(view))).validate_json()
    assert len(view["blocks"]) <= blocks.MAX_VIEW_BLOCKS
    assert len(view.get("private_metadata", "")) <= 3000
    require_valid_blocks(view["blocks"])
    ids = [block["block_id"] for block in view["blocks"] if "block_id" in block]
    assert len(ids) == len(set(ids))


def _objects(found: Any) -> list[dict[str, Any]]:
    """Every text object in what is drawn."""
    if isinstance(found, list):
        return [one for inner in found for one in _objects(inner)]
    if not isinstance(found, dict):
        return []
    own = [found] if found.get("type") in ("plain_text", "mrkdwn") and "text" in found else []
    return own + [one for inner in found.values() for one in _objects(inner)]


def _formatted(found: Any) -> str:
    """All text that Slack parses."""
    return "\n".join(one["text"] for one in _objects(found) if one["type"] == "mrkdwn")


@SLOW
@given(
    args=ARGUMENTS,
    why=TEXTS,
    tool=TEXTS,
    kind=KINDS,
    state=STATES,
    evidence=st.lists(TEXTS, max_size=8),
    question=VALUES,
)
def test_a_card_is_within_slacks_limits_whatever_is_asked(
    args: dict[str, Any], why: str, tool: str, kind: Any, state: Any, evidence: list[str], question: Any
) -> None:
    approval = _approval(
        args=args, rationale=why.replace("\x00", ""), tool=tool.replace("\x00", ""), kind=kind, state=state, question=question,
        risk=why[:10].replace("\x00", ""), rule=tool[:90].replace("\x00", ""), rule_reason=why[:400].replace("\x00", ""),
        allowed_decisions=list(approval_pb2.Decision.values())[1:],
    )  # fmt: skip
    card = card_of(approval)
    shown = cards.approval(card, evidence)
    require_valid(shown)
    origin = modals.origin_of(card, "C1", "1.2")
    for modal in (modals.edit, modals.reject, modals.answer, modals.details):
        require_valid_view(modal(card, origin))
    assert modals.Origin.load(origin.dump()) == origin


@SLOW
@given(text=TEXTS, tool=TEXTS, result=TEXTS, citations=st.lists(TEXTS, max_size=30), draft=TEXTS)
def test_a_run_and_its_answer_are_within_slacks_limits(
    text: str, tool: str, result: str, citations: list[str], draft: str
) -> None:
    view = Conversation(
        run=RUN,
        draft=draft,
        sequences={RUN: 1},
        states={RUN: run_pb2.RUN_STATE_RUNNING},
        entries=(
            *(
                ToolStep(f"{RUN}/steps/{n}", tool, (("a", text), ("b", result)), "finished", result, 1.0)
                for n in range(20)
            ),
            Message(f"{RUN}/events/9", "agent", text, tuple(Citation("1", source) for source in citations)),
        ),
    )
    for shown in messages.messages(view, "operator"):
        require_valid(shown)
    for state in run_pb2.RunState.values():
        for shown in messages.messages(replace(view, states={RUN: state}), tool):
            require_valid(shown)


@SLOW
@given(reason=TEXTS, tool=TEXTS, count=st.integers(0, 300))
def test_a_report_of_a_halt_is_within_slacks_limits(reason: str, tool: str, count: int) -> None:
    entry = LatchEntry(
        "tenants/default/latches/l1",
        True,
        f"agent {tool}",
        "settled",
        ((tool, "killed; its outcome may be unknown"),) * count,
        runs=3,
        stopped_runs=2,
        milliseconds=4.2,
        reason=reason,
    )
    require_valid(messages.latch(entry))
    latches = [latch_pb2.Latch(name=entry.key, reason=reason.replace("\x00", ""))] * count
    approvals = [_approval(rationale=reason.replace("\x00", ""))] * min(count, 50)
    require_valid_view(home.view("ann", approvals, [run_pb2.Run(name=RUN)] * count, latches))


@pytest.mark.parametrize("text", HOSTILE[:3])
def test_what_agents_and_documents_say_is_never_parsed(text: str) -> None:
    card = card_of(
        _approval(
            args={"line": text, text[:60]: 1},
            rationale=text,
            tool=text,
            risk=text,
            tool_description=text,
            rule=text,
        )
    )
    decided = replace(card, state=approval_pb2.APPROVAL_STATE_REJECTED, outcome=f"rejected by ann: {text}")
    view = apply(Conversation(), run_pb2.Event(run=RUN, sequence=1, type=run_pb2.EVENT_TYPE_CREATED))
    view = replace(
        view,
        entries=(
            ToolStep(f"{RUN}/steps/1", text, ((text, text),), "finished", text),
            Message(f"{RUN}/events/3", "agent", text, (Citation("1", text, text),)),
        ),
        states={RUN: run_pb2.RUN_STATE_SUCCEEDED},
    )
    latch = LatchEntry(
        "l", True, text, "settled", ((text, "killed; its outcome may be unknown"),), reason=text
    )
    drawn = [
        cards.approval(card, [text]),
        cards.approval(decided),
        *messages.messages(view, text),
        messages.latch(latch),
    ]
    for shown in drawn:
        parsed = _formatted(shown.blocks) + shown.text
        assert "```" not in _formatted(shown.blocks)
        for forbidden in ("<!channel", "<@U1", "<https"):
            assert forbidden not in parsed
        assert "<" not in parsed.replace("<!date^", "")


def test_a_button_carries_the_approval_and_the_digest_and_nothing_else() -> None:
    card = card_of(_approval(args={"password": "hunter2"}))
    (row,) = [block for block in cards.approval(card).blocks if block["type"] == "actions"]
    assert {button["value"] for button in row["elements"]} == {f"a1:{'ab' * 32}"}
    assert cards.parse_value(cards.value_of(card)) == ("a1", "ab" * 32)


def test_what_a_card_can_not_show_is_approved_in_its_details_only() -> None:
    card = card_of(_approval(args={"text": "x" * 5000}))
    shown = cards.approval(card)
    assert "approval.approve" not in str(shown.blocks)
    details = modals.details(card, modals.origin_of(card))
    assert details["submit"]["text"] == "Approve"
    told = "".join(text["text"] for text in _objects(details["blocks"]))
    assert told.count("x") >= 5000
    endless = card_of(_approval(args={"text": "x" * 400_000}))
    assert "submit" not in modals.details(endless, modals.origin_of(endless))
    assert "fermata approve a1" in str(modals.details(endless, modals.origin_of(endless)))


@pytest.mark.parametrize(
    ("kind", "decisions", "buttons"),
    [
        ("INPUT", ["ANSWER", "REJECT"], ["Answer", "Reject", "Details", "Halt run"]),
        ("RECOVERY", ["IT_HAPPENED", "GIVE_UP"], ["It happened", "Give up", "Details", "Halt run"]),
        ("RECOVERY", ["DO_AGAIN", "GIVE_UP"], ["Do it again", "Give up", "Details", "Halt run"]),
        ("BUDGET", ["APPROVE", "REJECT"], ["Approve", "Reject", "Details", "Halt run"]),
    ],
)
def test_each_kind_of_question_has_the_buttons_that_fit_it(
    kind: str, decisions: list[str], buttons: list[str]
) -> None:
    card = card_of(
        _approval(
            kind=approval_pb2.ApprovalKind.Value(f"APPROVAL_KIND_{kind}"),
            allowed_decisions=[approval_pb2.Decision.Value(f"DECISION_{name}") for name in decisions],
            question={"question": "Which line?"},
        )
    )
    shown = cards.approval(card)
    assert [button["text"]["text"] for button in shown.blocks[-1]["elements"]] == buttons
    assert "Which line?" in str(shown.blocks)


SECRET = {
    "type": "object",
    "properties": {"pin": {"type": "string", "writeOnly": True}, "door": {"type": "string"}},
}


def test_a_secret_argument_is_shown_nowhere_and_stays_as_it_is() -> None:
    card = card_of(_approval(args={"pin": "4711", "door": "A"}, schema=SECRET, tool="open"))
    drawn = [
        cards.approval(card).blocks,
        modals.edit(card, modals.origin_of(card)),
        modals.details(card, modals.origin_of(card)),
    ]
    assert "4711" not in str(drawn)
    assert REDACTED in str(drawn)
    names = list(card.args)
    values = {modals.block_of(names.index("door")): {"value": {"type": "plain_text_input", "value": "B"}},
              modals.block_of(names.index("pin")): {"value": {"type": "plain_text_input", "value": None}}}  # fmt: skip
    assert modals.read_edit(card, values) == {"pin": "4711", "door": "B"}
    report = agent_pb2.GraphReport(tools=[agent_pb2.ToolInfo(name="open", args_schema=json.dumps(SECRET))])
    step = ToolStep(f"{RUN}/steps/1", "open", (("door", "A"), ("pin", "4711")), "running")
    view = Conversation(run=RUN, sequences={RUN: 1}, entries=(step,), states={RUN: run_pb2.RUN_STATE_RUNNING})
    (shown,) = messages.messages(view, "operator", secrets_of(report))
    assert "4711" not in str(shown.blocks)
    assert "door=A" in str(shown.blocks)


FORM = {
    "type": "object",
    "properties": {
        "line": {"enum": ["line-1", "line-2"]},
        "rpm": {"type": "integer", "maximum": 3000},
        "note": {"type": "string"},
        "hold": {"type": "boolean"},
    },
    "required": ["line", "rpm"],
    "additionalProperties": False,
}


def _card_with_form() -> Card:
    return card_of(_approval(args={"line": "line-1", "rpm": 1200, "note": "a"}, schema=FORM))


def _entered(card: Card, **texts: str | None) -> dict[str, Any]:
    names = [
        block["label"]["text"]
        for block in modals.edit(card, modals.origin_of(card))["blocks"]
        if block["type"] == "input"
    ]
    return {
        modals.block_of(names.index(name)): {"value": {"type": "plain_text_input", "value": text}}
        for name, text in texts.items()
    }


def test_a_form_has_a_field_for_each_argument_with_its_value_and_choices() -> None:
    form = modals.edit(_card_with_form(), modals.origin_of(_card_with_form()))
    fields = {block["label"]["text"]: block for block in form["blocks"] if block["type"] == "input"}
    assert [option["value"] for option in fields["line"]["element"]["options"]] == ["line-1", "line-2"]
    assert fields["line"]["element"]["initial_option"]["value"] == "line-1"
    assert fields["rpm"]["element"]["initial_value"] == "1200"
    assert [option["value"] for option in fields["hold"]["element"]["options"]] == ["true", "false"]
    assert [name for name, block in fields.items() if block["optional"]] == ["note", "hold"]


def test_what_a_form_holds_is_typed_and_an_emptied_option_is_left_to_its_default() -> None:
    card = _card_with_form()
    read = modals.read_edit(card, _entered(card, line="line-2", rpm="900", note=None, hold="true"))
    assert read == {"line": "line-2", "rpm": 900, "hold": True}
    assert modals.read_edit(card, _entered(card, rpm=None)) == card.args


@pytest.mark.parametrize(("name", "text"), [("rpm", "fast"), ("rpm", "3001"), ("line", "line-9")])
def test_a_fault_is_shown_at_its_field(name: str, text: str) -> None:
    card = _card_with_form()
    with pytest.raises(EditError) as caught:
        modals.read_edit(card, _entered(card, **{name: text}))
    (block,) = modals.errors_of(card, caught.value.metadata["argument"], caught.value.message)
    assert block in _entered(card, **{name: text})


@given(st.text(max_size=400), st.integers(2, 50))
def test_pieces_lose_nothing_but_line_ends(text: str, limit: int) -> None:
    found = blocks.pieces(text, limit)
    assert all(blocks.length(piece) <= limit for piece in found)
    assert "".join(found).replace("\n", "") == text.replace("\n", "")
    assert blocks.length(blocks.cut(text, limit)) <= limit
