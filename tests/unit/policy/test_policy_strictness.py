"""Looking twice: the stricter verdict holds, and a granted approval covers only what is no stricter."""

from __future__ import annotations

from fermata.server.policy import ApprovalRequirement, OnTimeout, Outcome, Verdict, covers, stricter


def asks(rule_id: str = "a", **requirement: object) -> Verdict:
    return Verdict(
        Outcome.REQUIRE_APPROVAL,
        rule_id,
        "",
        ApprovalRequirement(**requirement),  # type: ignore[arg-type]
    )


ALLOW = Verdict(Outcome.ALLOW, "allow", "")
DENY = Verdict(Outcome.DENY, "deny", "")


def test_deny_is_stricter_than_asking_and_asking_than_allowing() -> None:
    order = [ALLOW, asks(), DENY]
    for i, loose in enumerate(order):
        for strict in order[i:]:
            assert stricter(loose, strict).outcome is strict.outcome
            assert stricter(strict, loose).outcome is strict.outcome


def test_two_requirements_become_one_that_asks_for_all_that_both_ask_for() -> None:
    given = asks("given", roles=("approver", "operator"), count=1, valid_for_seconds=60)
    now = asks("now", roles=("admin", "approver"), count=2, on_timeout=OnTimeout.HALT, not_requester=True)
    both = stricter(given, now)
    assert both.rule_id == "now"
    assert both.requirement == ApprovalRequirement(("approver",), 2, 60, OnTimeout.HALT, True)
    assert stricter(both, now).requirement == both.requirement


def test_a_second_look_that_adds_nothing_leaves_the_first() -> None:
    given = asks("given", count=2)
    assert stricter(given, asks("now", count=1)) is given
    assert stricter(given, ALLOW) is given
    assert stricter(given, given) is given


def test_without_a_role_in_common_the_roles_of_the_second_look_hold() -> None:
    both = stricter(asks(roles=("operator",)), asks(roles=("admin",)))
    assert both.requirement is not None
    assert both.requirement.roles == ("admin",)


def test_an_approval_covers_what_asks_for_no_more() -> None:
    given = ApprovalRequirement(("approver",), 2, 300, not_requester=True)
    assert covers(given, given)
    assert covers(given, ApprovalRequirement(("admin", "approver"), 1, 900))
    assert not covers(given, ApprovalRequirement(("admin",), 1, 900))
    assert not covers(given, ApprovalRequirement(("approver",), 3, 900))
    assert not covers(given, ApprovalRequirement(("approver",), 1, 60))
    assert not covers(ApprovalRequirement(), ApprovalRequirement(not_requester=True))
