"""What has to hold at the end of every history, read from the store, from the outside, and from what people were told."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from sqlalchemy import create_engine, select
from tests.simulation.graphs import EFFECTS
from tests.simulation.outside import Outside
from tests.simulation.people import Notes
from tests.simulation.plant import Plant

from fermata.server.approvals import records as approvals
from fermata.server.latches import records as latches
from fermata.server.ledger import steps
from fermata.server.names import parse
from fermata.server.runs.transitions import ENDED, HALTING
from fermata.server.store import schema
from fermata.v1 import latch_pb2, run_pb2

E = run_pb2.EventType

TAKES_THE_PLACE = ("interrupt", "rollback")


def broken(plant: Plant, outside: Outside, notes: Notes) -> list[str]:
    """A sentence for each promise that was broken; empty where all were kept."""
    engine = create_engine(f"sqlite:///{plant.path}")
    try:
        with engine.connect() as connection:
            store = _Store(connection, clock_is_right=plant.clock.offset_seconds == 0.0)
    finally:
        engine.dispose()
    found: list[str] = []
    for check in (
        _acknowledged,
        _once,
        _sequences,
        _owners,
        _turns,
        _effects,
        _unasked,
        _ends,
        _doubts,
        _only_listed,
        _latches,
        _settled,
        _children_first,
    ):
        found += check(store, outside, notes)
    return found


class _Store:
    """The rows of the store at the end."""

    def __init__(self, connection: Any, *, clock_is_right: bool) -> None:
        self.clock_is_right = clock_is_right
        """True where the times in the store can be compared with those of the outside."""

        def rows(table: Any) -> list[Any]:
            return list(connection.execute(select(table).order_by(table.c.n)).fetchall())

        self.runs = {row.id: row for row in rows(schema.runs)}
        self.steps = rows(schema.steps)
        self.approvals = {row.id: row for row in rows(schema.approvals)}
        self.latches = {row.id: row for row in rows(schema.latches)}
        self.expired = {
            json.loads(row.args)["call"] for row in self.approvals.values() if row.state == approvals.EXPIRED
        }
        """Calls about which nobody had said anything when the time for it was over."""
        halts = {row.id for row in self.latches.values() if row.kind == latches.HALT}
        self.kept = list(connection.execute(select(schema.latch_runs)).fetchall())
        self.halted = {row.run for row in self.kept if row.latch in halts}
        """Ids of runs that a halt has stopped, whether or not whoever set it has heard of that."""
        self.reports = list(connection.execute(select(schema.latch_steps)).fetchall())
        calls = {row.id: json.loads(row.args)["call"] for row in self.steps}
        self.listed = {(row.latch, row.run, calls[row.step]) for row in self.reports}
        """(latch, run, call) of every effect that a latch has found open."""
        self.events: dict[str, list[Any]] = defaultdict(list)
        self.halted_calls: set[str] = set()
        """Calls that were refused because their tool was halted; their run went on without them."""
        for row in rows(schema.events):
            self.events[row.run].append(row)
            if row.type == E.EVENT_TYPE_STEP_REFUSED and json.loads(row.data)["reason"] == "HALTED":
                self.halted_calls.add(json.loads(row.data)["args"]["call"])

    def covers(self, latch: Any, run: Any, tool: str) -> bool:
        """True where a latch covers a call of ``tool`` in ``run``; put down here once more, and not as the product does it."""
        family = {run.id}
        above = run
        while above.parent:
            family.add(above.parent)
            above = self.runs[above.parent]
        return bool(
            {
                "run": latch.target == run.id,
                "run_tree": latch.target in family,
                "thread": latch.target == run.thread,
                "agent": latch.target == run.agent,
                "tool": latch.target == tool,
                "tenant": True,
            }[latch.scope]
        )


def _acknowledged(store: _Store, outside: Outside, notes: Notes) -> Iterator[str]:
    for wanted in notes.wanted:
        if wanted.run and parse(wanted.run, "runs").id not in store.runs:
            yield f"{wanted.run} was acknowledged and is not there"
    for name, (decision, _) in notes.decided.items():
        row = store.approvals.get(parse(name, "approvals").id)
        if row is None or row.decision != decision:
            yield f"the decision about {name} was acknowledged and is not there"
    for stopped in notes.stopped:
        if parse(stopped.latch.name, "latches").id not in store.latches:
            yield f"{stopped.latch.name} was acknowledged and is not there"


def _sequences(store: _Store, outside: Outside, notes: Notes) -> Iterator[str]:
    for run, events in store.events.items():
        numbers = [event.sequence for event in events]
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"the history of {run} has a gap: {numbers}"
        if store.runs[run].sequence != len(numbers):
            yield f"{run} counts {store.runs[run].sequence} events and has {len(numbers)}"
    for run, seen in notes.seen.items():
        if seen != list(range(seen[0], seen[0] + len(seen))):
            yield f"a watch of {run} brought {seen}"


def _owners(store: _Store, outside: Outside, notes: Notes) -> Iterator[str]:
    for run, events in store.events.items():
        owners: dict[int, str] = {}
        for event in events:
            if event.type != E.EVENT_TYPE_LEASED:
                continue
            data = json.loads(event.data)
            if data["epoch"] in owners:
                yield f"epoch {data['epoch']} of {run} was granted twice"
            if owners and data["epoch"] <= max(owners):
                yield f"the epoch of {run} went back to {data['epoch']}"
            owners[data["epoch"]] = data["worker"]
        for step in store.steps:
            if step.run == run and owners.get(step.epoch) != step.worker:
                yield f"step {step.key} of {run} ran on {step.worker} in epoch {step.epoch}, which it did not own"


def _effects(store: _Store, outside: Outside, notes: Notes) -> Iterator[str]:
    planned = {call: tool for wanted in notes.wanted for tool, call in wanted.calls}
    for call, effects in outside.by_call.items():
        if call not in planned:
            yield f"{call} happened, and nobody planned it"
        kind = EFFECTS[effects[0].tool]
        if kind == "UNSAFE" and len(effects) > 1:
            yield f"{effects[0].tool} {call} happened {len(effects)} times"
        if kind == "IDEMPOTENT" and len({effect.key for effect in effects}) > 1:
            yield f"put {call} was repeated with another key"
        if kind == "IDEMPOTENT" and not effects[0].key:
            yield f"put {call} had no key"
    for call in notes.rejected:
        if outside.has_happened(call):
            yield f"{call} was rejected and happened"


def _once(store: _Store, outside: Outside, notes: Notes) -> Iterator[str]:
    """A request that was sent again because its answer was lost is the same request."""
    plans = [json.dumps(json.loads(row.input)["turns"]) for row in store.runs.values()]
    for wanted in notes.wanted:
        count = plans.count(json.dumps(wanted.turns))
        if count > 1:
            yield f"{wanted.run} was made {count} times"


def _unasked(store: _Store, outside: Outside, notes: Notes) -> Iterator[str]:
    """What policy reserves for people happens after one of them has said yes, and in no other case."""
    allowed = {
        json.loads(row.args)["call"]: row.decided
        for row in store.approvals.values()
        if row.kind == approvals.ACTION and row.state == approvals.APPROVED
    }
    for effect in outside.effects:
        if effect.tool == "ask" and effect.call not in allowed:
            yield f"ask {effect.call} happened unasked"


def _ends(store: _Store, outside: Outside, notes: Notes) -> Iterator[str]:
    for wanted in notes.wanted:
        if not wanted.run:
            continue
        row = store.runs.get(parse(wanted.run, "runs").id)
        if row is None:
            continue
        state = run_pb2.RunState.Name(row.state)
        if row.state not in ENDED:
            yield f"{wanted.run} is {state} at the end"
        elif row.state == run_pb2.RUN_STATE_SUCCEEDED:
            for tool, call in wanted.calls:
                refused = notes.rejected | notes.given_up | store.expired | store.halted_calls
                if call not in refused and not outside.has_happened(call):
                    yield f"{wanted.run} succeeded without {tool} {call}"
        elif row.state == run_pb2.RUN_STATE_HALTED:
            if row.id not in store.halted:
                yield f"{wanted.run} is halted, and nobody halted it"
        elif row.state == run_pb2.RUN_STATE_CANCELLED:
            if not any(later.after and later.strategy in TAKES_THE_PLACE for later in notes.wanted):
                yield f"{wanted.run} is cancelled, and nobody wrote a second time"
        elif row.state == run_pb2.RUN_STATE_EXPIRED:
            if not wanted.deadline_seconds:
                yield f"{wanted.run} is expired, and had no deadline"
        elif row.state == run_pb2.RUN_STATE_FAILED:
            reason = json.loads(row.error)["reason"]
            gave_up = any(call in notes.given_up for _, call in wanted.calls)
            if reason != "HOST_DIED" and not gave_up:
                yield f"{wanted.run} failed: {row.error}"

    let_through = {(row.run, row.args): row for row in store.steps if row.attempt == 1}
    for effect in outside.effects:
        row = let_through.get(
            (parse(effect.run, "runs").id, json.dumps({"call": effect.call}, separators=(",", ":")))
        )
        if row is not None and not effect.process.endswith(f" of {row.worker}"):
            yield f"{effect.tool} {effect.call} happened in {effect.process}, and was let through for {row.worker}"


def _turns(store: _Store, outside: Outside, notes: Notes) -> Iterator[str]:
    """A thread has one run at work: the next one is leased when the one before has ended, and nothing of that can happen any more."""
    at_work: dict[str, str] = {}
    for event in sorted((event for events in store.events.values() for event in events), key=lambda e: e.n):
        if event.type == E.EVENT_TYPE_LEASED:
            other = at_work.setdefault(event.thread, event.run)
            if other != event.run:
                yield f"{event.run} was leased while {other} had its thread"
        elif event.state in ENDED and at_work.get(event.thread) == event.run:
            del at_work[event.thread]
    by_run = {wanted.run: wanted for wanted in notes.wanted if wanted.run}
    for effect in outside.effects:
        name = parse(effect.run, "runs").id
        ended = [event.time for event in store.events[name] if event.state in ENDED]
        cancelled = store.runs[name].state == run_pb2.RUN_STATE_CANCELLED
        known = {
            json.loads(row.args)["call"]
            for row in store.steps
            if row.run == name and row.outcome in (steps.KILLED, steps.OPEN, steps.CONFIRMED, steps.ABANDONED)
        }
        if cancelled and store.clock_is_right and effect.time > ended[0] and effect.call not in known:
            yield f"{effect.tool} {effect.call} of {by_run[effect.run].run} happened after that was cancelled"


def _doubts(store: _Store, outside: Outside, notes: Notes) -> Iterator[str]:
    """RECOVERY approvals are exactly about the calls that can't be repeated and whose end nobody knew when their lease ended, or when
    their run was being stopped.
    """
    asked = {(row.run, row.step): row for row in store.approvals.values() if row.kind == approvals.RECOVERY}
    names = {f"tenants/{row.tenant}/runs/{row.run}/steps/{row.id}": row for row in store.steps}
    doubtful: set[tuple[str, str]] = set()
    for run, events in store.events.items():
        open_now: set[str] = set()
        for event in events:
            data = json.loads(event.data)
            if event.type == E.EVENT_TYPE_STEP_STARTED:
                open_now.add(data["step"])
            elif event.type == E.EVENT_TYPE_STEP_CLOSED and data["outcome"] != "KILLED":
                open_now.discard(data["step"])
            elif event.type == E.EVENT_TYPE_LEASE_LOST or event.state in (HALTING, *ENDED):
                doubtful.update((run, names[step].key) for step in open_now)
    for run, step in asked:
        (row,) = [row for row in store.steps if (row.run, row.key) == (run, step)]
        if EFFECTS[row.tool] != "UNSAFE":
            yield f"somebody was asked about {row.tool} {row.args}, which may be repeated"
        if (run, step) not in doubtful:
            yield f"somebody was asked about {row.tool} {row.args}, which was never in doubt"
    for row in store.steps:
        unknown = row.outcome in (steps.OPEN, steps.KILLED)
        if EFFECTS[row.tool] == "UNSAFE" and unknown and (row.run, row.key) not in asked:
            yield f"nobody was asked about {row.tool} {row.args}, whose end is not known"


def _only_listed(store: _Store, outside: Outside, notes: Notes) -> Iterator[str]:
    """From a latch's commit until it is lifted only listed effects happen of all that it covers, and after it has settled none."""
    told = {parse(stopped.latch.name, "latches").id: stopped for stopped in notes.stopped}
    for latch in store.latches.values():
        if store.clock_is_right:
            since, settled, lifted = (
                latch.created,
                latch.settled or math.inf,
                latch.released or math.inf,
            )
        elif (stopped := told.get(latch.id)) is not None:
            since, settled, lifted = stopped.latched, stopped.settled, stopped.releasing
        else:
            continue
        for effect in outside.effects:
            run = store.runs[parse(effect.run, "runs").id]
            if not since < effect.time < lifted or not store.covers(latch, run, effect.tool):
                continue
            if (latch.id, run.id, effect.call) not in store.listed:
                yield f"{effect.tool} {effect.call} happened under the latch {latch.id}, which does not list it"
            elif effect.time > settled:
                yield f"{effect.tool} {effect.call} happened after the latch {latch.id} had settled"


def _latches(store: _Store, outside: Outside, notes: Notes) -> Iterator[str]:
    """From a latch's commit until it is lifted no gate that it covers lets anything through."""
    if not store.clock_is_right:
        return
    for latch in store.latches.values():
        for row in store.steps:
            within = latch.created < row.started < (latch.released or math.inf)
            if within and store.covers(latch, store.runs[row.run], row.tool):
                yield f"{row.tool} {row.args} passed its gate under the latch {latch.id}"


def _settled(store: _Store, outside: Outside, notes: Notes) -> Iterator[str]:
    """What has settled has nothing on its list that is still open, and no run that is not stopped."""
    open_now = (latch_pb2.LATCH_STEP_STATUS_OPEN, latch_pb2.LATCH_STEP_STATUS_UNREACHABLE)
    for latch in store.latches.values():
        if latch.settled and any(row.latch == latch.id and row.status in open_now for row in store.reports):
            yield f"the latch {latch.id} has settled with an effect that is open"


def _children_first(store: _Store, outside: Outside, notes: Notes) -> Iterator[str]:
    """What a halt of a whole family stops ends before the run that it was made for."""
    ended = {
        run: next((event.n for event in events if event.state in ENDED), None)
        for run, events in store.events.items()
    }
    for latch in store.latches.values():
        if latch.scope != "run_tree" or latch.kind != latches.HALT:
            continue
        stopped = {row.run for row in store.kept if row.latch == latch.id}
        for run in stopped:
            parent = store.runs[run].parent
            if parent in stopped and (ended[run] or math.inf) > (ended[parent] or math.inf):
                yield f"{parent} ended before {run}, which was made for it"
