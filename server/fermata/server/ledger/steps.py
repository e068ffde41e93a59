"""Steps: opened by the gate, closed by whoever learns how they ended."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format
from sqlalchemy import and_, bindparam, select, union_all, update

from fermata.server.latches import permits
from fermata.server.latches import records as latch_records
from fermata.server.names import Name, new_id
from fermata.server.runs.record import RunRecord
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import run_pb2, worker_pb2

OPEN = run_pb2.STEP_OUTCOME_UNSPECIFIED
FINISHED = run_pb2.STEP_OUTCOME_FINISHED
FAILED = run_pb2.STEP_OUTCOME_FAILED
NOT_STARTED = run_pb2.STEP_OUTCOME_NOT_STARTED
KILLED = run_pb2.STEP_OUTCOME_KILLED
CONFIRMED = run_pb2.STEP_OUTCOME_CONFIRMED
ABANDONED = run_pb2.STEP_OUTCOME_ABANDONED

SHOWN_TEXT = 4096
"""Characters of a result or an error that events and lists show."""


_MINE = and_(
    schema.steps.c.tenant == bindparam("of_tenant"),
    schema.steps.c.run == bindparam("of_run"),
    schema.steps.c.key == bindparam("of_key"),
)
_ONE = select(schema.steps).where(_MINE)
_IN_PLACE = select(schema.steps).where(
    and_(
        schema.steps.c.tenant == bindparam("of_tenant"),
        schema.steps.c.run == bindparam("of_run"),
        schema.steps.c.place == bindparam("of_place"),
        schema.steps.c.key != bindparam("of_key"),
    )
)
_ONE_AND_IN_PLACE = union_all(_ONE, _IN_PLACE)
_OF_RUN = (
    select(schema.steps)
    .where(and_(schema.steps.c.tenant == bindparam("of_tenant"), schema.steps.c.run == bindparam("of_run")))
    .order_by(schema.steps.c.n)
)
_OPEN = _OF_RUN.where(schema.steps.c.outcome == OPEN)
_UNFINISHED = _OF_RUN.where(schema.steps.c.outcome.in_((OPEN, KILLED)))
_UPDATE = update(schema.steps).where(_MINE)
_INSERT = schema.steps.insert()


def find(connection: Any, tenant: str, run: str, key: str) -> Any | None:
    """The row of the step with this key, or None."""
    return connection.execute(_ONE, {"of_tenant": tenant, "of_run": run, "of_key": key}).first()


def find_with_place(
    connection: Any, tenant: str, run: str, key: str, place: str
) -> tuple[Any | None, list[Any]]:
    """The row of the step with this key, or None, and the rows of others that were made in this place, oldest first."""
    mine = {"of_tenant": tenant, "of_run": run, "of_key": key}
    if not place:
        return connection.execute(_ONE, mine).first(), []
    rows = connection.execute(_ONE_AND_IN_PLACE, {**mine, "of_place": place}).fetchall()
    one = next((row for row in rows if row.key == key), None)
    return one, sorted((row for row in rows if row.key != key), key=lambda row: int(row.n))


def of_run(connection: Any, tenant: str, run: str) -> list[Any]:
    """The rows of a run's steps, oldest first."""
    return list(connection.execute(_OF_RUN, {"of_tenant": tenant, "of_run": run}).fetchall())


def outcome_word(outcome: int) -> str:
    """An outcome as people read it."""
    if outcome == OPEN:
        return "in doubt"
    return run_pb2.StepOutcome.Name(outcome).removeprefix("STEP_OUTCOME_").lower()  # type: ignore[arg-type]


def open_steps(connection: Any, tenant: str, run: str) -> list[Any]:
    """The run's steps that have passed their gate and are not closed."""
    return list(connection.execute(_OPEN, {"of_tenant": tenant, "of_run": run}).fetchall())


def open_under_lease(connection: Any, run: RunRecord) -> list[Any]:
    """The run's open steps that were started under the lease of now. One of an earlier lease may be under way in another process,
    even where the same worker had that.
    """
    return [
        row
        for row in open_steps(connection, run.tenant, run.id)
        if (row.worker, row.epoch) == (run.worker, run.epoch)
    ]


def unfinished(connection: Any, tenant: str, run: str) -> list[Any]:
    """The run's steps that have passed their gate and of which nobody knows how they ended."""
    return list(connection.execute(_UNFINISHED, {"of_tenant": tenant, "of_run": run}).fetchall())


def open_of_worker(connection: Any, worker: str) -> list[Any]:
    """Steps of any run that have passed their gate for this worker and are not closed."""
    table = schema.steps.c
    query = select(schema.steps).where(and_(table.worker == worker, table.outcome == OPEN))
    return list(connection.execute(query.order_by(table.n)).fetchall())


def begin(
    transaction: Transaction,
    run: RunRecord,
    gate: worker_pb2.Gate,
    effect: run_pb2.EffectClass.ValueType,
    *,
    args: str,
    rule: str,
    approval: str,
    earlier: Any | None,
) -> int:
    """Put a start on record, tell the run's history, and return which attempt it is.

    :param args: the arguments that will run, as JSON text.
    :param earlier: the row of an earlier start under the same key.
    """
    attempt = 1 if earlier is None else earlier.attempt + 1
    step = new_id() if earlier is None else earlier.id
    values = {
        "args": args,
        "attempt": attempt,
        "epoch": run.epoch,
        "worker": run.worker,
        "nonce": gate.nonce,
        "digest": gate.digest,
        "call_digest": gate.call_digest,
        "outcome": OPEN,
        "rule": rule,
        "approval": approval,
        "started": transaction.now,
        "ended": 0.0,
    }
    if earlier is None:
        transaction.execute(
            _INSERT,
            {
                "tenant": run.tenant,
                "run": run.id,
                "id": step,
                "key": gate.step,
                "kind": "tool",
                "namespace": gate.namespace,
                "task": gate.task_id,
                "ordinal": gate.ordinal,
                "tool": gate.tool,
                "place": gate.place,
                "tool_call": gate.tool_call_id,
                "effect": effect,
                **values,
            },
        )
    else:
        if earlier.outcome == OPEN:
            permits.keep(transaction, earlier, superseded=True)
        transaction.execute(
            _UPDATE, {"of_tenant": run.tenant, "of_run": run.id, "of_key": gate.step, **values}
        )
    run.emit(
        run_pb2.EVENT_TYPE_STEP_STARTED,
        step=str(Name(run.tenant, "runs", run.id, "steps", step)),
        tool=gate.tool,
        args=json.loads(args),
        effect=run_pb2.EffectClass.Name(effect).removeprefix("EFFECT_CLASS_"),
        rule=rule,
        attempt=attempt,
    )
    return attempt


def close(
    transaction: Transaction,
    run: RunRecord,
    row: Any,
    outcome: run_pb2.StepOutcome.ValueType,
    *,
    result: worker_pb2.Blob | None = None,
    text: str = "",
    error: str = "",
) -> None:
    """Close an open step, tell the run's history, and tell the latches that wait for it."""
    if outcome in latch_records.WORD_OF_PERSON and row.outcome == OPEN:
        permits.keep(transaction, row, superseded=False)
    transaction.execute(
        _UPDATE,
        {
            "of_tenant": row.tenant,
            "of_run": row.run,
            "of_key": row.key,
            "outcome": outcome,
            "result_type": result.type if result else "",
            "result": result.data if result else b"",
            "text": text[:SHOWN_TEXT],
            "error": error[:SHOWN_TEXT],
            "ended": transaction.now,
        },
    )
    if not run.has_ended:
        run.emit(
            run_pb2.EVENT_TYPE_STEP_CLOSED,
            step=str(Name(row.tenant, "runs", row.run, "steps", row.id)),
            tool=row.tool,
            outcome=run_pb2.StepOutcome.Name(outcome).removeprefix("STEP_OUTCOME_"),
            result=text[:SHOWN_TEXT],
            error=error[:SHOWN_TEXT],
        )
    latch_records.step_ended(transaction, row.tenant, row.run, row.key, outcome)


def report(transaction: Transaction, run: RunRecord, closed: worker_pb2.StepClosed) -> None:
    """Take a host's word on how a step ended.

    Facts are not thrown away: a stale epoch may report the outcome of a step that it started, as its nonce shows. A second report
    of the same step changes nothing, and a nonce that did not start it changes nothing either.
    """
    permits.reported(transaction, run.tenant, run.id, closed.nonce, closed.outcome)
    row = find(transaction, run.tenant, run.id, closed.step)
    if row is None or row.nonce != closed.nonce or row.outcome not in (OPEN, KILLED):
        return
    close(
        transaction,
        run,
        row,
        closed.outcome,
        result=closed.result,
        text=closed.text,
        error=closed.error,
    )


def to_message(row: Any) -> run_pb2.Step:
    """A step of the API from its row."""
    message = run_pb2.Step(
        name=str(Name(row.tenant, "runs", row.run, "steps", row.id)),
        key=row.key,
        kind=row.kind,
        tool=row.tool,
        digest=row.digest,
        effect=row.effect,
        attempt=row.attempt,
        epoch=row.epoch,
        outcome=row.outcome,
        result=row.text,
        error=row.error,
        rule=row.rule,
        approval=str(Name(row.tenant, "approvals", row.approval)) if row.approval else "",
    )
    json_format.Parse(row.args, message.args)
    message.start_time.FromNanoseconds(int(row.started * 1e9))
    if row.ended:
        message.end_time.FromNanoseconds(int(row.ended * 1e9))
    return message
