"""One tool call as the gate sees it: what is asked about it, and what is reported when it ends. No waiting happens
here."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.tools import BaseTool, ToolException
from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.types import Interrupt
from pydantic import BaseModel

from fermata.agents.runtime.call_input import (
    as_written,
    asked_for,
    has_aliases,
    injected_state,
    parsed_input,
    provenance,
    raising,
    rationale,
)
from fermata.agents.runtime.call_result import blob_of, cut, readdressed, text_of, value_of
from fermata.agents.runtime.calls import Call
from fermata.agents.runtime.canonical import Json, NotJsonError, canonical, digest, jsonable
from fermata.agents.runtime.context import current_call, current_execution
from fermata.agents.runtime.errors import CallRefused, RecordedFailure, ToolResultRefused, ToolTimeout
from fermata.agents.runtime.place import Place
from fermata.agents.runtime.run import ActiveRun
from fermata.v1 import agent_pb2, run_pb2, worker_pb2

EFFECT_KEY = "fermata.effect"
"""Key of a tool's metadata: READ, IDEMPOTENT or UNSAFE."""

RISK_KEY = "fermata.risk"
"""Key of a tool's metadata: low, medium or high."""

DEFAULT_RESULT_BYTES = 1024 * 1024
"""Largest result of a tool where the revision sets no limit."""

_ENVELOPE = "fermata.result"


@dataclass(frozen=True)
class InvalidInput:
    """Input that the tool's schema refuses. ``tool`` is a copy that raises the same error again, and can do nothing
    else: calling it gives LangChain's own handling of the error, without any effect."""

    tool: BaseTool


def prepare(
    run: ActiveRun, tool: BaseTool, tool_input: str | dict[str, Any], kwargs: Mapping[str, Any]
) -> GatedCall | InvalidInput:
    """Validate the input as the tool would, and state all facts that a decision about the call is bound to."""
    tool_call_id = kwargs.get("tool_call_id")
    given: str | dict[str, Any] = dict(tool_input) if isinstance(tool_input, dict) else tool_input
    try:
        parsed = parsed_input(tool, given, tool_call_id)
        visible = {k: jsonable(v, path=f"\x00{k}") for k, v in tool._filter_injected_args(parsed).items()}
        injected = injected_state(parsed, visible, tool_call_id)
    except (ValueError, TypeError, NotJsonError) as error:
        return InvalidInput(raising(tool, error))
    return GatedCall(run, tool, given, parsed, visible, injected, kwargs)


def call_digest(tool: str, args: Mapping[str, Any]) -> str:
    """SHA-256 over a tool's name and the arguments as the model wrote them; joins a middleware's decision to the gate."""
    return digest({"tool": tool, "args": jsonable(dict(args))})


def declared_effect(tool: BaseTool) -> run_pb2.EffectClass.ValueType:
    """What the tool says about repeating it; unspecified where it says nothing."""
    name = str((tool.metadata or {}).get(EFFECT_KEY, "")).upper()
    return {
        "READ": run_pb2.EFFECT_CLASS_READ,
        "IDEMPOTENT": run_pb2.EFFECT_CLASS_IDEMPOTENT,
        "UNSAFE": run_pb2.EFFECT_CLASS_UNSAFE,
    }.get(name, run_pb2.EFFECT_CLASS_UNSPECIFIED)


def declared_risk(tool: BaseTool) -> str:
    """low, medium or high; empty where the tool says nothing."""
    risk = str((tool.metadata or {}).get(RISK_KEY, "")).lower()
    return risk if risk in {"low", "medium", "high"} else ""


def args_schema(tool: BaseTool) -> str:
    """The JSON schema of the arguments that a model may set, as JSON text."""
    schema = tool.tool_call_schema
    if isinstance(schema, dict):
        return json.dumps(schema)
    return json.dumps(schema.model_json_schema() if issubclass(schema, BaseModel) else schema.schema())


class GatedCall:
    """A call with valid input. ``gate`` is what to ask; the other methods say what follows from the answer, and report
    the end."""

    def __init__(
        self,
        run: ActiveRun,
        tool: BaseTool,
        given: str | dict[str, Any],
        parsed: dict[str, Any],
        visible: dict[str, Json],
        injected: dict[str, Json],
        kwargs: Mapping[str, Any],
    ) -> None:
        self.run = run
        self.tool = tool
        self._given = given
        self._parsed = parsed
        self._visible = visible
        self._tool_call_id: str | None = kwargs.get("tool_call_id")
        place = Place.of(run, kwargs.get("config"))
        call = digest({"revision": run.revision, "tool": tool.name, "args": visible, "injected": injected})
        ordinal = run.ordinal(place.scope, place.attempt, tool.name, call)
        step = digest(
            {
                "thread": run.thread,
                "scope": place.scope,
                "tool": tool.name,
                "digest": call,
                "ordinal": ordinal,
            }
        )
        outer = current_call.get()
        parent = outer.call if outer is not None else None
        messages = place.messages()
        made = self._place(place, parent, messages)
        self.moving = Call(
            step=step,
            scope=place.task,
            parent=parent,
            place=made,
            execution=current_execution.get(),
        )
        self.gate = worker_pb2.Gate(
            step=step,
            nonce=uuid.uuid4().hex,
            namespace=place.namespace,
            task_id=place.task,
            ordinal=ordinal,
            tool=tool.name,
            args=canonical(visible),
            digest=call,
            call_digest=call_digest(tool.name, as_written(tool, given)),
            effect=declared_effect(tool),
            risk=declared_risk(tool),
            tool_call_id=self._tool_call_id or "",
            place=made,
            rationale=rationale(messages, self._tool_call_id),
            tool_description=tool.description,
            args_schema=args_schema(tool),
            provenance=provenance(messages),
        )

    def _place(self, place: Place, parent: Call | None, messages: list[BaseMessage]) -> str:
        """Where in its task the call is made, whatever its arguments: as the how-manieth call of its tool.

        Calls for which a message of the state asks are told apart by that message's ids, for they may come in any order;
        the state is the same for every execution of the task. The ids of a model that a node has asked by itself are not.
        """
        asked = self._tool_call_id if asked_for(messages, self._tool_call_id) else None
        within = parent.place if parent is not None else place.scope
        position = self.run.ordinal("place", within, place.attempt, self.tool.name, asked or "")
        return digest(
            {
                "thread": self.run.thread,
                "within": within,
                "tool": self.tool.name,
                "call": asked or "",
                "position": position,
            }
        )

    @property
    def time_limit_seconds(self) -> float:
        """How long the call may take; 0 for as long as it likes."""
        limits = self.run.spec.limits
        return limits.tool_time.ToTimedelta().total_seconds() if limits.HasField("tool_time") else 0.0

    def input_for(self, answer: worker_pb2.GateAnswer) -> str | dict[str, Any]:
        """The tool's input after PROCEED: as given, with the defaults that were shown, or as a person has edited it.

        :raises CallRefused: EDITED_ARGS_INVALID, where the edited arguments are not what the tool takes.
        """
        if not answer.edited_args:
            if isinstance(self._given, str):
                return self._given
            shown = {k: self._parsed[k] for k in self._visible if k in self._parsed and k not in self._given}
            return {**self._given, **shown} if not has_aliases(self.tool) else self._given
        edited = json.loads(answer.edited_args)
        if isinstance(self._given, str):
            if len(edited) != 1:
                raise CallRefused(
                    "EDITED_ARGS_INVALID", f"{self.tool.name} takes one argument, not {sorted(edited)}."
                )
            return str(next(iter(edited.values())))
        kept = {
            k: v
            for k, v in self._given.items()
            if k not in self._visible and k not in as_written(self.tool, self._given)
        }
        replaced = {**kept, **edited}
        try:
            parsed_input(self.tool, dict(replaced), self._tool_call_id)
        except (ValueError, TypeError) as error:
            raise CallRefused(
                "EDITED_ARGS_INVALID", f"{self.tool.name} does not take the edited arguments: {error}"
            ) from error
        return replaced

    # how it ends

    def finished(self, result: Any) -> Future[worker_pb2.HostReply]:
        """Report a result; the record is what a later execution returns. Too large a result leaves a record that
        raises."""
        refusal, blob = self._record(result)
        text = text_of(result)
        if refusal is not None:
            text = f"{cut(text)} … ({refusal})"
            blob = blob_of({_ENVELOPE: 1, "refused": [refusal.reason, str(refusal)]})
        return self._close(run_pb2.STEP_OUTCOME_FINISHED, result=blob, text=text)

    def checked(self, result: Any) -> Any:
        """The result for the agent.

        Where it can't be kept, the agent gets an error in its place: an error message in answer to a model's call, else
        ``ToolResultRefused``.
        """
        refusal, _ = self._record(result)
        return result if refusal is None else self._error(refusal)

    def failed(self, error: BaseException) -> Future[worker_pb2.HostReply]:
        """Report that the call raised."""
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        told = str(error) or text
        if isinstance(error, asyncio.CancelledError):
            text = told = "It was cancelled while it ran; whether it took effect is unknown."
        blob = blob_of({_ENVELOPE: 1, "error": cut(told)})
        return self._close(run_pb2.STEP_OUTCOME_FAILED, result=blob, error=cut(text))

    def cancelled(self, error: asyncio.CancelledError) -> None:
        """Report that the call was cancelled while it ran.

        Not where that is because the lease is lost: whoever has the run now would take it for the call's own failure. The call is
        in doubt, and once nothing of the run moves here the host says so.
        """
        if self.run.silent:
            self.run.activity.end(self.moving)
        else:
            self.failed(error)

    def interrupted(self, signal: GraphBubbleUp) -> None:
        """Report that the tool itself interrupted its graph: LangGraph executes it again, from its beginning."""
        if isinstance(signal, GraphInterrupt) and signal.args:
            for interrupt in signal.args[0]:
                if isinstance(interrupt, Interrupt):
                    self.run.interrupts[interrupt.id] = interrupt
        self._close(run_pb2.STEP_OUTCOME_NOT_STARTED, text="The tool has interrupted itself.")

    def give_back(self, cause: str) -> None:
        """Report that a permit was not used."""
        self.run.not_started.append(self.moving.step)
        self._close(run_pb2.STEP_OUTCOME_NOT_STARTED, text=cause)

    def give_back_unused(self, asking: Future[worker_pb2.HostReply]) -> None:
        """To be called when the gate's answer is there and nobody will act on it."""
        permit = (
            not asking.cancelled()
            and asking.exception() is None
            and asking.result().gate.verdict == worker_pb2.GATE_VERDICT_PROCEED
        )
        if permit:
            self.give_back(self.run.stop_cause or "The call was cancelled before it began.")
        else:
            self.run.activity.end(self.moving)

    def timed_out(self) -> ToolTimeout:
        """The error for a call over its time limit."""
        return ToolTimeout(
            f"{self.tool.name} took longer than {self.time_limit_seconds:g} s (TOOL_TIMEOUT). Whether it had its effect is unknown."
        )

    def refused(self, reason: str, message: str) -> ToolMessage:
        """What the agent gets in place of a call that policy or a person refused.

        :raises CallRefused: where no model's call is there to be answered.
        """
        return self._error(CallRefused(reason, message or f"{self.tool.name} was refused."))

    def recorded(self, answer: worker_pb2.GateAnswer) -> Any:
        """What the call came to in an earlier execution.

        :raises RecordedFailure: where it failed then.
        """
        value = value_of(answer.result)
        record = value if isinstance(value, dict) and _ENVELOPE in value else None
        if answer.outcome in (run_pb2.STEP_OUTCOME_FAILED, run_pb2.STEP_OUTCOME_ABANDONED):
            text = record["error"] if record and "error" in record else answer.message
            if answer.outcome == run_pb2.STEP_OUTCOME_ABANDONED:
                return self._error(CallRefused("STEP_ABANDONED", text or "A person has given this call up."))
            raise RecordedFailure(text or "The call failed.")
        if record is None:
            return self._told(value)
        if "refused" in record:
            return self._error(ToolResultRefused(*record["refused"]))
        return readdressed(record["value"], record["tool_call_id"], self._tool_call_id)

    def _record(self, result: Any) -> tuple[ToolResultRefused | None, worker_pb2.Blob]:
        limit = self.run.spec.limits.tool_result_bytes or DEFAULT_RESULT_BYTES
        try:
            blob = blob_of({_ENVELOPE: 1, "value": result, "tool_call_id": self._tool_call_id})
        except (TypeError, ValueError, RecursionError) as error:
            message = f"{self.tool.name} returned what can't be kept: {type(result).__name__} ({error})."
            return ToolResultRefused("TOOL_RESULT_NOT_SERIALIZABLE", message), worker_pb2.Blob()
        if len(blob.data) > limit:
            message = (
                f"{self.tool.name} returned {len(blob.data)} bytes, and the limit is {limit} (TOOL_RESULT_TOO_LARGE). "
                "It has run: ask for less, do not just repeat it."
            )
            return ToolResultRefused("TOOL_RESULT_TOO_LARGE", message), worker_pb2.Blob()
        return None, blob

    def _error(self, error: ToolException) -> ToolMessage:
        if self._tool_call_id is None:
            raise error
        return ToolMessage(
            content=str(error), status="error", name=self.tool.name, tool_call_id=self._tool_call_id
        )

    def _told(self, value: Any) -> Any:
        """A result that a person gave: as a message where a model asked."""
        if self._tool_call_id is None:
            return value
        content = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return ToolMessage(content=content, name=self.tool.name, tool_call_id=self._tool_call_id)

    def _close(
        self, outcome: run_pb2.StepOutcome.ValueType, *, text: str = "", error: str = "", result: Any = None
    ) -> Future[worker_pb2.HostReply]:
        closed = worker_pb2.StepClosed(
            step=self.moving.step,
            nonce=self.gate.nonce,
            outcome=outcome,
            text=cut(text),
            error=error,
        )
        if result is not None:
            closed.result.CopyFrom(result)
        answer = self.run.send(step_closed=closed)
        if self.run.stop_cause:
            # What answers the stop goes the same way, behind this: it need not wait for this to be on record.
            self.run.activity.end(self.moving)
        else:
            answer.add_done_callback(lambda _: self.run.activity.end(self.moving))
        return answer


def effect_after(
    tool: BaseTool, declarations: Mapping[str, agent_pb2.ToolDeclaration]
) -> tuple[run_pb2.EffectClass.ValueType, str]:
    """Effect class and risk of a tool, with what the agent file says over what the tool says; undeclared is UNSAFE."""
    effect, risk = declared_effect(tool), declared_risk(tool)
    if (declared := declarations.get(tool.name)) is not None:
        effect = declared.effect or effect
        risk = declared.risk or risk
    return effect or run_pb2.EFFECT_CLASS_UNSAFE, risk
