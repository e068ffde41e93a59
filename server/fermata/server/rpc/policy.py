"""PolicyService."""

from __future__ import annotations

from typing import Any

from fermata.server.agents import operations as agents
from fermata.server.agents.revisions import Revision
from fermata.server.errors import invalid
from fermata.server.names import parse, parse_tenant
from fermata.server.policy import records
from fermata.server.policy.explain import Explanation, RuleExplanation, explain
from fermata.server.policy.parse import parse_policy
from fermata.server.policy.rules import Call, Outcome, Policy, Requester, Risk
from fermata.server.principals.callers import Caller
from fermata.server.rpc.method import Service, unary
from fermata.server.rpc.once import once
from fermata.server.store.database import Transaction
from fermata.server.values import plain
from fermata.v1 import policy_pb2, policy_pb2_grpc, run_pb2

_OUTCOMES = {
    Outcome.ALLOW: policy_pb2.POLICY_OUTCOME_ALLOW,
    Outcome.DENY: policy_pb2.POLICY_OUTCOME_DENY,
    Outcome.REQUIRE_APPROVAL: policy_pb2.POLICY_OUTCOME_REQUIRE_APPROVAL,
}


class PolicyService(Service, policy_pb2_grpc.PolicyServiceServicer):
    """See protos/fermata/v1/policy.proto."""

    NAME = "PolicyService"

    @unary
    async def GetPolicy(self, request: policy_pb2.GetPolicyRequest, caller: Caller) -> policy_pb2.Policy:
        tenant = self.require_tenant(caller, _tenant_in(request.name))
        return await self.plane.read(lambda connection: records.get(connection, tenant))

    @unary
    async def UpdatePolicy(
        self, request: policy_pb2.UpdatePolicyRequest, caller: Caller
    ) -> policy_pb2.Policy:
        tenant = self.require_tenant(caller, _tenant_in(request.policy.name))
        text, etag = request.policy.text, request.policy.etag
        parse_policy(text)

        def operation(transaction: Transaction) -> policy_pb2.Policy:
            def produce() -> policy_pb2.Policy:
                return records.replace(transaction, tenant, text, etag, caller.name)

            return once(transaction, caller, "UpdatePolicy", request, produce, policy_pb2.Policy)

        return await self.plane.write(operation, urgent=True)

    @unary
    async def TestPolicy(
        self, request: policy_pb2.TestPolicyRequest, caller: Caller
    ) -> policy_pb2.TestPolicyResponse:
        tenant = self.tenant_of(caller, request.parent)
        if not request.tool:
            raise invalid("Name the tool that is called.", reason="TOOL_MISSING", field="tool")
        if request.risk and request.risk not in {risk.value for risk in Risk}:
            raise invalid(
                f"{request.risk!r} is no risk: it is low, medium, high, or empty for what is declared.",
                reason="RISK_INVALID",
                field="risk",
            )
        if request.effect not in run_pb2.EffectClass.values():
            raise invalid("An effect is READ, IDEMPOTENT or UNSAFE.", reason="EFFECT_INVALID", field="effect")
        args = plain(request.args, "args")
        alone = parse_policy(request.text) if request.text else None
        agent = parse(request.agent, "agents") if request.agent else None
        if agent is not None:
            self.require_tenant(caller, agent.tenant)

        def operation(connection: Any) -> tuple[Policy | None, Revision | None]:
            revision = None
            if agent is not None:
                current = agents.get(connection, tenant, agent.id).revision.name.rsplit("/", 1)[-1]
                revision = self.plane.revisions.get(connection, tenant, agent.id, current)
            return self.plane.policies.in_force(connection, tenant), revision

        in_force, revision = await self.plane.read(operation)
        call = _call(request, args, revision, caller)
        policies = [alone] if alone is not None else [in_force, revision.policy if revision else None]
        return _to_message(explain([policy for policy in policies if policy is not None], call))


def _tenant_in(name: str) -> str:
    parent, slash, last = name.rpartition("/")
    if not slash or last != "policy":
        raise invalid(
            f"{name!r} is not a name of the form tenants/{{tenant}}/policy.",
            reason="INVALID_NAME",
            name=name,
            form="tenants/{tenant}/policy",
        )
    return parse_tenant(parent)


def _call(
    request: policy_pb2.TestPolicyRequest, args: dict[str, Any], revision: Revision | None, caller: Caller
) -> Call:
    """The call as its gate would see it, had ``caller`` asked for the run."""
    effect, risk = request.effect, request.risk
    if revision is not None:
        tool = next((tool for tool in revision.report.tools if tool.name == request.tool), None)
        declared_effect, declared_risk = revision.declared(
            request.tool,
            tool.effect if tool else run_pb2.EFFECT_CLASS_UNSPECIFIED,
            tool.risk if tool else "",
        )
        effect, risk = effect or declared_effect, risk or declared_risk
    return Call(
        tool=request.tool,
        args=args,
        agent=revision.agent if revision else "",
        revision=revision.id if revision else "",
        effect=run_pb2.EffectClass.Name(effect).removeprefix("EFFECT_CLASS_"),
        risk=risk or None,
        requested_by=Requester(caller.name, caller.acting_roles),
    )


def _to_message(explanation: Explanation) -> policy_pb2.TestPolicyResponse:
    verdict = explanation.verdict
    return policy_pb2.TestPolicyResponse(
        outcome=_OUTCOMES[verdict.outcome],
        rule=verdict.rule_id,
        reason=verdict.reason,
        roles=verdict.requirement.roles if verdict.requirement else (),
        trace=[
            policy_pb2.RuleTrace(rule=rule.rule_id, matched=rule.decided, explanation=_explained(rule))
            for rule in explanation.rules
        ],
    )


def _explained(rule: RuleExplanation) -> str:
    return rule.detail if rule.reached else f"An earlier rule has decided. {rule.detail}"
