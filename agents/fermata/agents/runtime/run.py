"""One run as its host sees it: the lease, the latch, what is not yet committed, and what moves.

Messages of a run leave in the order in which their commits were taken, so the server sees a run's history in order
whichever thread made it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from google.protobuf.message import Message
from langgraph.types import Interrupt

from fermata.agents.runtime.calls import Activity
from fermata.agents.runtime.context import current_execution
from fermata.agents.runtime.errors import FrameTooLargeError, HostError, RunStopped, ServerRefusedError
from fermata.agents.runtime.wire import Wire
from fermata.v1 import run_pb2, worker_pb2

_READS = frozenset({"checkpoint_query"})
"""Messages that commit nothing where they arrive."""

FLUSH_SECONDS = 0.05
"""How long what a graph has done may wait for a message that takes it along."""


MAX_COMMIT_BYTES = 34 * 1024 * 1024
"""What one message takes along at the most: a frame may hold it beside whatever else the message says."""


class ActiveRun:
    """The state that the gate, the checkpointer and the execution of one run share.

    :param wire: the host's socket.
    :param assign: the lease and what to run.
    """

    def __init__(self, wire: Wire, assign: worker_pb2.Assign) -> None:
        self.wire = wire
        self.lease = assign.lease
        self.name = assign.lease.run
        self.thread = assign.thread
        self.revision = assign.revision
        self.spec = assign.spec
        self.thread_is_new = assign.thread_is_new
        """True where the thread had no state when the run was leased."""
        self.may_be_recorded = assign.restarted
        """True where calls of this run may be on record already: a task of it is perhaps executed again."""
        self.activity = Activity()
        self.loop_thread = threading.get_ident()
        self.on_stop: Callable[[], None] = lambda: None
        """Called in any thread when the run must not go on; cancels the execution."""
        self.on_buffered: Callable[[], None] = lambda: None
        """Called in any thread when something waits to be committed."""
        self.stop_cause = ""
        """Why nothing of this run may start any more; empty while it may."""
        self.refusal: run_pb2.RunError | None = None
        """What the server said when it refused a message of this run."""
        self.failure: HostError | None = None
        """What went wrong where LangGraph would not let it out, such as a state that can't be stored."""
        self.silent = False
        """True where the lease is lost: nothing but outcomes of started steps is written."""
        self.hold = ""
        """The hold's latch, while one is asked for."""
        self.asked: dict[str, str] = {}
        """Approvals by step key that this execution came upon."""
        self.interrupts: dict[str, Interrupt] = {}
        """Interrupts by id that tools of this execution raised by themselves; LangGraph shows only one of a node's."""
        self.keeps: Callable[[str], bool] = lambda namespace: not namespace
        """True for checkpoint namespaces whose state is kept, so that their task ids outlast a crash."""
        self.gate_stopped = False
        """True where a gate of this execution was told to stop."""
        self.held_by = ""
        """The latch for which it was, if the server named one."""
        self.not_started: list[str] = []
        """Steps whose permit was given back."""
        self._lock = threading.RLock()
        self._commit = worker_pb2.Commit()
        self._commit_bytes = 0
        self._entered = False
        self._ordinals: dict[tuple[int, *tuple[str, ...]], int] = {}

    @property
    def on_loop_thread(self) -> bool:
        """True where the calling thread is the one that runs the event loop."""
        return threading.get_ident() == self.loop_thread

    @property
    def has_uncommitted(self) -> bool:
        """True where something waits to be committed."""
        return bool(self._commit.ByteSize())

    def stop(self, cause: str, *, silent: bool = False, drains: bool = False) -> None:
        """Let nothing of this run start from now on, and cancel its execution. May be called from any thread; the first
        cause stays.

        :param silent: write nothing any more, for the lease is lost.
        :param drains: leave it to the caller to cancel what has started.
        """
        with self._lock:
            self.silent = self.silent or silent
        if not self.stop_cause:
            self.stop_cause = cause
            if not drains:
                self.on_stop()
        if self.silent:
            self.wire.give_up(self.lease, RunStopped(self.stop_cause))

    def fail(self, failure: HostError) -> None:
        """Let the run end with this error. The first one stays."""
        self.failure = self.failure or failure
        self.stop(failure.reason)

    def check(self) -> None:
        """
        :raises RunStopped: where nothing of this run may start any more.
        """
        if self.stop_cause:
            raise RunStopped(self.stop_cause)

    def new_execution(self) -> int:
        """Forget what the last execution came upon: the graph is entered again. Returns the number of the new one."""
        self.may_be_recorded = self.may_be_recorded or self._entered
        self._entered = True
        with self._lock:
            self._ordinals.clear()
        self.asked = {}
        self.interrupts = {}
        self.gate_stopped = False
        self.held_by = ""
        return self.activity.enter()

    def ordinal(self, *key: str) -> int:
        """Counts, from 0, how often it was called with this key in the execution that the calling code belongs to: what an
        earlier one has left behind must not shift the numbers of this one."""
        execution = current_execution.get() or self.activity.execution
        with self._lock:
            count = self._ordinals.get((execution, *key), 0)
            self._ordinals[execution, *key] = count + 1
        return count

    def buffer(self, add: Callable[[worker_pb2.Commit], None], size_bytes: int = 0) -> None:
        """Add to what the next message commits.

        :param size_bytes: of what is added, where that may be much: if one message can't hold all, what waits leaves now.
        """
        with self._lock:
            if self._commit_bytes and self._commit_bytes + size_bytes > MAX_COMMIT_BYTES and not self.silent:
                self._send_ahead(self._take_commit())
            add(self._commit)
            self._commit_bytes += size_bytes
        self.on_buffered()

    def event(self, kind: run_pb2.EventType.ValueType, data: dict[str, Any]) -> None:
        """Report an event, in order with checkpoints and writes. ``data`` is JSON."""
        event = worker_pb2.HostEvent(type=kind)
        event.data.update(data)
        self.buffer(lambda commit: commit.events.append(event))

    def send(self, **body: Message) -> Future[worker_pb2.HostReply]:
        """Send a message with all that is not committed yet, and return the future of its answer.

        What only reads can't carry a commit: all that is not committed goes in a message of its own before it. A
        refusal stops the run. Where the lease is lost nothing leaves but ``step_closed``, and the future fails with
        ``RunStopped`` whatever was sent.
        """
        with self._lock:
            if self.silent and "step_closed" not in body:
                refused: Future[worker_pb2.HostReply] = Future()
                refused.set_exception(RunStopped(self.stop_cause))
                return refused
            message = worker_pb2.HostMessage(lease=self.lease, **body)  # type: ignore[arg-type]
            if not self.silent:
                commit = self._take_commit()
                if commit.ByteSize():
                    if body.keys() & _READS:
                        self._send_ahead(commit)
                    else:
                        message.commit.CopyFrom(commit)
            answer = self.wire.request(message)
            if self.silent:
                self.wire.give_up(self.lease, RunStopped(self.stop_cause))
        answer.add_done_callback(self._look_at)
        return answer

    def _take_commit(self) -> worker_pb2.Commit:
        commit, self._commit, self._commit_bytes = self._commit, worker_pb2.Commit(), 0
        return commit

    def _send_ahead(self, commit: worker_pb2.Commit) -> None:
        ahead = worker_pb2.HostMessage(lease=self.lease, commit=commit)
        self.wire.request(ahead).add_done_callback(self._look_at)

    def ask(self, **body: Message) -> Future[worker_pb2.HostReply]:
        """Ask something that is no part of the run's history; a refusal is the asker's to handle and does not stop the
        run."""
        return self.wire.request(worker_pb2.HostMessage(lease=self.lease, **body))  # type: ignore[arg-type]

    def post(self, **body: Message) -> None:
        """Send a message that wants no answer and carries no commit."""
        if not self.silent:
            self.wire.post(worker_pb2.HostMessage(lease=self.lease, **body))  # type: ignore[arg-type]

    def _look_at(self, answer: Future[worker_pb2.HostReply]) -> None:
        """LangGraph swallows a put that fails during cancellation, so a refusal is seen here, whoever waits for it."""
        if answer.cancelled():
            return
        if (error := answer.exception()) is not None:
            if isinstance(error, FrameTooLargeError):
                self.fail(error)
            else:
                self.stop(str(error), silent=not isinstance(error, RunStopped) or self.silent)
        elif (reply := answer.result()).WhichOneof("body") == "resume":
            # Here, in the wire's thread, since a new hold may be the next message.
            self.hold = ""
        elif reply.WhichOneof("body") == "error":
            self.refusal = reply.error
            self.stop(f"{reply.error.reason}: {reply.error.message}", silent=lease_is_lost(reply.error))


LEASE_REASONS = frozenset({"STALE_EPOCH", "LEASE_LOST", "RUN_ENDED"})
"""Reasons with which a server says that this host's lease counts no more."""


def lease_is_lost(error: run_pb2.RunError) -> bool:
    """True where the refusal means that another host may have the run."""
    return error.reason in LEASE_REASONS


def answer_of(reply: worker_pb2.HostReply) -> worker_pb2.HostReply:
    """The reply, if it is none that refuses.

    :raises ServerRefusedError: where it refuses.
    """
    if reply.WhichOneof("body") == "error":
        raise ServerRefusedError(reply.error.message, reason=reply.error.reason, detail=reply.error.detail)
    return reply
