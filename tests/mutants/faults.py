"""Faults that somebody might put into the product one day, each as the change of a line or two, and the promise that it breaks.

``seed`` is the first that was seen to find it; the harness begins there and goes on with all others.
"""

from __future__ import annotations

from dataclasses import dataclass

RUN = "agents/fermata/agents/runtime/run.py"
HOST_GATE = "agents/fermata/agents/runtime/gate.py"
EXECUTION = "agents/fermata/agents/runtime/execution.py"
GATED = "agents/fermata/agents/runtime/gated.py"
SERVER = "server/fermata/server"


@dataclass(frozen=True)
class Mutant:
    """A fault: in ``file`` the text ``old``, which occurs once, becomes ``new``."""

    name: str
    file: str
    old: str
    new: str
    seed: int = 0
    also: tuple[tuple[str, str, str], ...] = ()
    """Further changes of this kind, where a second line of defence hides the first."""

    @property
    def changes(self) -> tuple[tuple[str, str, str], ...]:
        """(file, old, new) of all of them."""
        return ((self.file, self.old, self.new), *self.also)


MUTANTS = (
    Mutant(
        "no epoch check, under a worker that does not let go of what it has lost",
        f"{SERVER}/runs/record.py",
        "return self.worker == worker and self.epoch == epoch and not self.has_ended",
        "return not self.has_ended",
        also=(
            (
                f"{SERVER}/cluster/worker.py",
                "        for lease in welcome.lost:\n",
                "        for lease in welcome.lost[:0]:\n",
            ),
        ),
        seed=13,
    ),
    Mutant(
        "acknowledgement before the flush",
        f"{SERVER}/store/database.py",
        'connection.execute("PRAGMA synchronous = FULL")',
        'connection.execute("PRAGMA synchronous = NORMAL")',
        seed=13,
    ),
    Mutant(
        "the gate outside its transaction: the start is not on record before the effect",
        f"{SERVER}/ledger/gate.py",
        """    attempt = steps.begin(
        transaction,
        asked.run,
        asked.gate,
        asked.effect,
        args=args,
        rule=verdict.rule_id if verdict else "recovery",
        approval=approval.id if approval is not None else "",
        earlier=asked.earlier,
    )
""",
        "    attempt = 1\n",
        seed=5,
    ),
    Mutant(
        "a cached latch",
        f"{SERVER}/ledger/gate.py",
        "    latch = latch_records.on(transaction, run.subject(asked.gate.tool))\n"
        "    if latch is None and run.state == run_pb2.RUN_STATE_RUNNING:\n",
        "    known = _stopped_by_latch.__dict__\n"
        "    if transaction.now - known.get('since', 0.0) > 2.0:\n"
        "        known.update(since=transaction.now, latches=latch_records.active(transaction, run.tenant))\n"
        "    from fermata.server.latches.coverage import strictest\n"
        "    latch = strictest(known['latches'], run.subject(asked.gate.tool))\n"
        "    if latch is None:\n",
        seed=24,
    ),
    Mutant(
        "a gate that read before the latch: it goes by what its run's last gate has read",
        f"{SERVER}/ledger/gate.py",
        "    latch = latch_records.on(transaction, run.subject(asked.gate.tool))\n"
        "    if latch is None and run.state == run_pb2.RUN_STATE_RUNNING:\n",
        """    from fermata.server.latches.coverage import strictest

    known = _stopped_by_latch.__dict__
    read = latch_records.active(transaction, run.tenant)
    latch = strictest(known.get(run.id, read), run.subject(asked.gate.tool))
    known[run.id] = read
    if latch is None:
""",
        seed=179,
    ),
    Mutant(
        "a latch that is acknowledged before its flush",
        f"{SERVER}/rpc/latches.py",
        """            return once(transaction, caller, "CreateLatch", request, produce, latch_pb2.Latch)

        return await self.plane.write(operation, at_once=True)
""",
        """            return once(transaction, caller, "CreateLatch", request, produce, latch_pb2.Latch)

        import asyncio

        written = asyncio.get_running_loop().create_future()

        def early(transaction: Transaction) -> None:
            latch = operation(transaction)
            written.get_loop().call_soon(written.set_result, latch)

        self.plane.spawn(self.plane.write(early, at_once=True), "a latch")
        return await written
""",
        seed=9,
    ),
    Mutant(
        "a host that awaits between check and dispatch, and does not count the call meanwhile",
        HOST_GATE,
        "    # No await between the line above and the call; a cancellation from here on reaches the tool.\n",
        """    owner.activity.end(call.moving)
    await asyncio.sleep(0.02)
    owner.activity.begin(call.moving)
""",
        seed=5,
    ),
    Mutant(
        "a halt that is answered while calls go on which nobody has cancelled",
        EXECUTION,
        "        await asyncio.wrap_future(self._run.activity.idle())\n",
        "",
        seed=33,
    ),
    Mutant(
        "a permit that a frozen host keeps: what an earlier lease has open is not on the list",
        f"{SERVER}/lifecycle/latching.py",
        "    where = [table.outcome == steps.OPEN, covered(tenant, wanted)]\n",
        "    where = [table.outcome == steps.OPEN, covered(tenant, wanted), table.worker == runs.worker]\n",
        seed=478,
    ),
    Mutant(
        "a permit that is forgotten when its call is started again elsewhere, or a person speaks of it",
        f"{SERVER}/lifecycle/latching.py",
        "    _list_permits(transaction, latch, tenant, wanted)\n",
        "",
        seed=435,
    ),
    Mutant(
        "settled without a confirmed death: a host is reported as killed and is not",
        f"{SERVER}/cluster/worker.py",
        "        await host.kill()\n        # What is told of it is told where its end is noticed.\n",
        "        self._report_stop(stop, killed=True)\n",
        also=(
            # Hardly any grace, so that this is met more often than a call that swallows its cancellation for two seconds.
            (f"{SERVER}/lifecycle/stopping.py", "GRACE_SECONDS = 2.0\n", "GRACE_SECONDS = 0.001\n"),
        ),
    ),
    Mutant(
        "a descendant that is missed",
        f"{SERVER}/latches/coverage.py",
        "            return latch.target == subject.run or latch.target in subject.ancestors\n",
        "            return latch.target == subject.run\n",
        seed=395,
        also=(
            (
                f"{SERVER}/lifecycle/latching.py",
                "            return and_(runs.tenant == tenant, runs.id.in_(select(family.c.id)))\n",
                "            return and_(runs.tenant == tenant, runs.id == wanted.target)\n",
            ),
        ),
    ),
    Mutant(
        "a decision taken from a resume value",
        HOST_GATE,
        "        await done(asking)\n        answer = granted(owner, asking).gate\n",
        "        await done(asking)\n        answer = granted(owner, asking).gate\n"
        "        if answer.verdict == worker_pb2.GATE_VERDICT_ASK and owner.may_be_recorded:\n"
        "            answer.verdict = worker_pb2.GATE_VERDICT_PROCEED\n",
    ),
    Mutant(
        "a retry of what carries no request_id",
        "protos/fermata/client/retry.py",
        '            setattr(request, "request_id", str(uuid.uuid4()))  # noqa: B010 - not every Message has the field\n',
        "            pass\n",
        seed=16,
    ),
    Mutant(
        "a lost nonce: a gate that is asked again is another gate",
        f"{SERVER}/ledger/gate.py",
        "        if known is not None:\n            return worker_pb2.GateAnswer.FromString(known)\n",
        "",
        seed=8,
    ),
    Mutant(
        "a step key by tool_call_id",
        GATED,
        '                "ordinal": ordinal,\n            }\n',
        '                "ordinal": self._tool_call_id or uuid.uuid4().hex,\n            }\n',
    ),
    Mutant(
        "a lease granted twice: the epoch stays",
        f"{SERVER}/lifecycle/leases.py",
        "        run.epoch += 1\n",
        "        run.epoch = run.epoch or 1\n",
        seed=1,
    ),
    Mutant(
        "a lease granted twice: what somebody has is handed out",
        f"{SERVER}/lifecycle/schedule.py",
        'and_(schema.runs.c.state == RUNNING, schema.runs.c.worker == "")',
        "and_(schema.runs.c.state == RUNNING)",
    ),
    Mutant(
        "effect before durable: a gate leaves the checkpoint of its task behind",
        RUN,
        "                    else:\n                        message.commit.CopyFrom(commit)\n",
        '                    elif "gate" in body:\n                        self._commit.MergeFrom(commit)\n'
        "                    else:\n                        message.commit.CopyFrom(commit)\n",
        seed=24,
    ),
    Mutant(
        "a silent worker taken for a dead one",
        f"{SERVER}/lifecycle/leases.py",
        "    with open_run(transaction, tenant, run) as record:\n        if dead:\n            for row",
        "    dead = True\n    with open_run(transaction, tenant, run) as record:\n        if dead:\n            for row",
        seed=24,
    ),
    Mutant(
        "what can't be repeated is repeated after a crash",
        f"{SERVER}/ledger/recovery.py",
        "REPEATABLE = (run_pb2.EFFECT_CLASS_READ, run_pb2.EFFECT_CLASS_IDEMPOTENT)",
        "REPEATABLE = (run_pb2.EFFECT_CLASS_READ, run_pb2.EFFECT_CLASS_IDEMPOTENT, run_pb2.EFFECT_CLASS_UNSAFE)",
        seed=28,
    ),
    Mutant(
        "somebody is asked about what may be repeated",
        f"{SERVER}/ledger/recovery.py",
        "REPEATABLE = (run_pb2.EFFECT_CLASS_READ, run_pb2.EFFECT_CLASS_IDEMPOTENT)",
        "REPEATABLE = (run_pb2.EFFECT_CLASS_READ,)",
        seed=29,
    ),
    Mutant(
        "another key for the repeat of a call",
        f"{SERVER}/ledger/gate.py",
        'idempotency_key=f"{asked.run.id}-{asked.gate.step}",',
        'idempotency_key=f"{asked.run.id}-{asked.gate.step}-{attempt}",',
        seed=29,
    ),
    Mutant(
        "a forgotten request_id",
        f"{SERVER}/rpc/once.py",
        "    earlier = recall(transaction, caller, method, request, kind)\n    if earlier is not None:\n"
        "        return earlier\n    response = produce()\n",
        "    response = produce()\n    return response\n",
        seed=16,
    ),
    Mutant(
        "a question that is forgotten at a break",
        f"{SERVER}/cluster/link.py",
        "        again = [entry for entry in self.unanswered.values() if entry.written]\n",
        "        again = []\n",
        seed=37,
    ),
    Mutant(
        "a resume that is not said again",
        f"{SERVER}/lifecycle/reconnection.py",
        "    elif (resume := repeated_resume(transaction, run)) is not None:\n",
        "    elif False and (resume := repeated_resume(transaction, run)) is not None:\n",
        seed=164,
    ),
    Mutant(
        "room that a failed write does not give back",
        f"{SERVER}/store/database.py",
        "                for undo in item.publication.undo:\n                    undo()\n",
        "",
        seed=197,
    ),
)
