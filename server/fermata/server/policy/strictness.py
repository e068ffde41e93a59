"""Which of two verdicts binds more: needed because policy looks twice, when a question is asked and when its
call starts.
"""

from __future__ import annotations

from dataclasses import replace

from fermata.server.policy.rules import ApprovalRequirement, OnTimeout, Outcome, Verdict

_RANK = {Outcome.ALLOW: 0, Outcome.REQUIRE_APPROVAL: 1, Outcome.DENY: 2}


def stricter(given: Verdict, now: Verdict) -> Verdict:
    """What holds when policy said ``given`` before and says ``now`` for what is really about to start.

    DENY over REQUIRE_APPROVAL over ALLOW. Two requirements become one that asks for all that both ask for:
    the greater count, the shorter validity, the requester excluded if either does, HALT over REJECT, and the
    roles that both accept. Where they have no role in common, those of ``now`` hold, for it has seen the
    arguments that will run. Where ``now`` adds nothing, ``given`` is returned as it is; a repeated call gives
    the same.
    """
    if _RANK[given.outcome] != _RANK[now.outcome]:
        return max(given, now, key=lambda verdict: _RANK[verdict.outcome])
    if given.requirement is None or now.requirement is None:
        return given
    both = _both(given.requirement, now.requirement)
    return given if both == given.requirement else replace(now, requirement=both)


def covers(given: ApprovalRequirement, wanted: ApprovalRequirement) -> bool:
    """True where whatever satisfied ``given`` satisfies ``wanted`` as well, so that nobody has to be asked
    again.
    """
    return (
        given.count >= wanted.count
        and set(given.roles) <= set(wanted.roles)
        and given.valid_for_seconds <= wanted.valid_for_seconds
        and (given.not_requester or not wanted.not_requester)
    )


def _both(given: ApprovalRequirement, now: ApprovalRequirement) -> ApprovalRequirement:
    halts = OnTimeout.HALT in (given.on_timeout, now.on_timeout)
    return ApprovalRequirement(
        roles=tuple(sorted(set(given.roles) & set(now.roles))) or now.roles,
        count=max(given.count, now.count),
        valid_for_seconds=min(given.valid_for_seconds, now.valid_for_seconds),
        on_timeout=OnTimeout.HALT if halts else OnTimeout.REJECT,
        not_requester=given.not_requester or now.not_requester,
    )
