"""A host's end of the socket: requests with answers, and what the worker says unasked.

One thread reads. It resolves the futures of requests and hands everything else to ``on_message``; so a halt is seen
while user code blocks the event loop, and any thread can wait for an answer.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future

from fermata.agents.runtime.errors import ChannelClosedError, FrameTooLargeError
from fermata.agents.runtime.frames import FrameSocket
from fermata.v1 import worker_pb2

_LeaseKey = tuple[str, int]
_NOBODY: tuple[_LeaseKey, None] = (("", 0), None)


class Wire:
    """Requests and answers over one socket.

    :param on_message: called in the reading thread with every message that is no answer; must not block.
    :param on_closed: called in the reading thread, once, when the worker's end is gone; all open requests have failed
        by then.
    """

    def __init__(
        self,
        frames: FrameSocket[worker_pb2.ServerMessage],
        on_message: Callable[[worker_pb2.ServerMessage], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._frames = frames
        self._on_message = on_message
        self._on_closed = on_closed
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._open: dict[int, tuple[_LeaseKey, Future[worker_pb2.HostReply]]] = {}
        self._closed = False
        self._thread = threading.Thread(target=self._read, name="fermata-wire", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def request(self, message: worker_pb2.HostMessage) -> Future[worker_pb2.HostReply]:
        """Send a message and return the future of its answer; the message gets an id of its own.

        The future fails with ``ChannelClosedError`` where the worker is gone, and with ``FrameTooLargeError`` where
        nothing was sent.
        """
        answer: Future[worker_pb2.HostReply] = Future()
        with self._lock:
            if self._closed:
                answer.set_exception(ChannelClosedError())
                return answer
            message.id = next(self._ids)
            self._open[message.id] = ((message.lease.run, message.lease.epoch), answer)
        try:
            self._send(message)
        except (ChannelClosedError, FrameTooLargeError) as error:
            with self._lock:
                self._open.pop(message.id, None)
            if not answer.done():
                answer.set_exception(error)
        return answer

    def give_up(self, lease: worker_pb2.Lease, error: BaseException) -> None:
        """Fail the requests under a lease that is lost: whoever waits would wait for ever, for nobody passes on their answers.
        A second time changes nothing."""
        key = (lease.run, lease.epoch)
        with self._lock:
            given_up = [number for number, (held, _) in self._open.items() if held == key]
            answers = [self._open.pop(number)[1] for number in given_up]
        for answer in answers:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)

    def post(self, message: worker_pb2.HostMessage) -> None:
        """Send a message that wants no answer.

        :raises ChannelClosedError: where the worker is gone.
        """
        self._send(message)

    def close(self) -> None:
        """Close the socket; open requests fail."""
        self._frames.close()

    def _send(self, message: worker_pb2.HostMessage) -> None:
        self._frames.send([worker_pb2.WorkerMessage(host=message)])

    def _read(self) -> None:
        while (message := self._frames.receive()) is not None:
            self._take(message)
        self._end()

    def _take(self, message: worker_pb2.ServerMessage) -> None:
        if message.WhichOneof("body") == "host_reply":
            with self._lock:
                _, answer = self._open.pop(message.host_reply.id, _NOBODY)
            if answer is not None and answer.set_running_or_notify_cancel():
                answer.set_result(message.host_reply)
        else:
            self._on_message(message)

    def _end(self) -> None:
        with self._lock:
            self._closed = True
            orphans, self._open = self._open, {}
        for _, orphan in orphans.values():
            if orphan.set_running_or_notify_cancel():
                orphan.set_exception(ChannelClosedError())
        self._on_closed()
