"""The people of the chaos: they watch everything, decide at once what they are asked, and tell the truth about what happened.

About an effect in doubt they look at the machine. Has it happened, they say so. Has it not, and is the process that might still
do it known to be dead, they let it be done again; as long as it is not, they wait, for it may still happen.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from contextlib import aclosing
from typing import Any

from tests.chaos.recorder import Recorder

from fermata.client import Client, FermataError
from fermata.client.runs import TERMINAL_STATES
from fermata.client.streams import StreamOptions
from fermata.v1 import approval_pb2, run_pb2

PATIENT = StreamOptions(heartbeat_timeout_seconds=10.0, patience_seconds=None)
LOOK_AGAIN_SECONDS = 0.1
DEAD_SECONDS = 15.0
"""How long the end of a connection may take to be seen after its process has died."""

EDITED_AMOUNT = 1007
REFUSED_TO_DECIDE = ("APPROVAL_DECIDED", "APPROVAL_CANCELLED", "DECISION_NOT_ALLOWED")
"""What a decision may come too late or too early for."""


def wish(call: str) -> str:
    """What people say when they are asked whether a call may be made: the same however often its round is played."""
    return random.Random(f"wish {call}").choices(("approve", "edit", "reject"), (6, 2, 2))[0]


class People:
    """``watching`` keeps them at it."""

    def __init__(self, client: Client, recorder: Recorder) -> None:
        self._client = client
        self._recorder = recorder
        self.seen: dict[str, list[run_pb2.Event]] = defaultdict(list)
        """Every run's events, as one watch of everything has brought them."""
        self._changed = asyncio.Event()
        self._answering: dict[str, asyncio.Task[None]] = {}

    async def watch(self) -> None:
        """Follow everything; until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_runs())
            group.create_task(self._watch_approvals())

    async def ended(self, run: str) -> None:
        """Wait until the watch has brought the run's end."""
        while not (self.seen[run] and self.seen[run][-1].state in TERMINAL_STATES):
            self._changed.clear()
            await self._changed.wait()

    async def _watch_runs(self) -> None:
        async with aclosing(self._client.runs.watch(options=PATIENT)) as items:
            async for item in items:
                self.seen[item.event.run].append(item.event)
                self._changed.set()

    async def _watch_approvals(self) -> None:
        async with (
            aclosing(self._client.approvals.watch(options=PATIENT)) as items,
            asyncio.TaskGroup() as group,
        ):
            async for item in items:
                shown = item.approval
                if shown.state == approval_pb2.APPROVAL_STATE_PENDING and shown.name not in self._answering:
                    self._answering[shown.name] = group.create_task(self._answer(shown))

    async def _answer(self, shown: approval_pb2.Approval) -> None:
        try:
            if shown.kind == approval_pb2.APPROVAL_KIND_RECOVERY:
                await self._say_what_happened(shown)
            else:
                await self._say_whether(shown)
        except FermataError as error:
            if error.reason not in REFUSED_TO_DECIDE:
                raise

    async def _say_whether(self, shown: approval_pb2.Approval) -> None:
        args: dict[str, Any] = dict(shown.args)
        match wish(str(args["call"])):
            case "approve":
                await self._client.approvals.approve(shown)
            case "edit":
                await self._client.approvals.edit(shown, {**args, "amount": EDITED_AMOUNT})
            case _:
                await self._client.approvals.reject(shown, comment="not today")

    async def _say_what_happened(self, shown: approval_pb2.Approval) -> None:
        call = str(dict(shown.args)["call"])
        loop = asyncio.get_running_loop()
        dead_since = 0.0
        while shown.state == approval_pb2.APPROVAL_STATE_PENDING:
            is_dead = approval_pb2.DECISION_DO_AGAIN in shown.allowed_decisions
            if self._recorder.has_happened(call):
                await self._client.approvals.decide(
                    shown.name,
                    approval_pb2.DECISION_IT_HAPPENED,
                    digest=shown.digest,
                    value=f"{call} is done",
                )
                return
            if is_dead and not self._recorder.open[call]:
                await self._client.approvals.decide(
                    shown.name, approval_pb2.DECISION_DO_AGAIN, digest=shown.digest
                )
                return
            dead_since = (dead_since or loop.time()) if is_dead else 0.0
            if dead_since and loop.time() - dead_since > DEAD_SECONDS:
                raise AssertionError(
                    f"the process of {call} is said to be dead, and is still in conversation"
                )
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
            shown = await self._client.approvals.get(shown.name)
