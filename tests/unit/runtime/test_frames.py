"""Frames over a socket pair."""

from __future__ import annotations

import asyncio
import struct

import pytest

from fermata.agents.runtime import frames
from fermata.agents.runtime.errors import ChannelClosedError, FrameInvalidError, FrameTooLargeError
from fermata.agents.runtime.frames import FrameSocket, FrameStream, encode, socket_pair
from fermata.v1 import worker_pb2

V = worker_pb2


def resume(number: int) -> V.ServerMessage:
    return V.ServerMessage(resume=V.Resume(lease=V.Lease(run="r", epoch=number)))


async def test_messages_arrive_in_order_in_both_directions() -> None:
    ours, theirs = socket_pair()
    stream = await FrameStream.open(ours, V.WorkerMessage)
    host = FrameSocket(theirs, V.ServerMessage)
    for number in range(100):
        stream.send(resume(number))
    await stream.drain()
    received = [await asyncio.to_thread(host.receive) for _ in range(100)]
    assert [message.resume.lease.epoch for message in received if message] == list(range(100))
    host.send([V.WorkerMessage(host=V.HostMessage(id=7)), V.WorkerMessage(host=V.HostMessage(id=8))])
    assert [(await stream.receive()).host.id for _ in range(2)] == [7, 8]  # type: ignore[union-attr]
    stream.close()
    assert await asyncio.to_thread(host.receive) is None
    host.close()


async def test_what_is_queued_while_a_write_is_in_flight_goes_as_one() -> None:
    class Writer:
        """Notes its writes."""

        def __init__(self) -> None:
            self.writes: list[int] = []

        def writelines(self, batch: list[bytes]) -> None:
            self.writes.append(len(batch))

        async def drain(self) -> None:
            await asyncio.sleep(0)

    writer = Writer()
    stream = FrameStream(asyncio.StreamReader(), writer, V.WorkerMessage)  # type: ignore[arg-type]
    for number in range(10):
        stream.send(resume(number))
    await stream.drain()
    assert writer.writes == [10]


async def test_the_end_of_the_other_side_is_told() -> None:
    ours, theirs = socket_pair()
    stream = await FrameStream.open(ours, V.WorkerMessage)
    host = FrameSocket(theirs, V.ServerMessage)
    host.close()
    assert await stream.receive() is None
    with pytest.raises(ChannelClosedError):
        host.send([V.WorkerMessage()])
    stream.close()


async def test_a_frame_over_the_limit_is_refused_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 100)
    with pytest.raises(FrameTooLargeError, match="limit of 100 bytes"):
        encode(V.WorkerMessage(host=V.HostMessage(lease=V.Lease(run="x" * 200))))
    ours, theirs = socket_pair()
    stream = await FrameStream.open(ours, V.WorkerMessage)
    theirs.sendall(struct.pack(">I", 101))
    with pytest.raises(FrameTooLargeError):
        await stream.receive()
    stream.close()
    theirs.close()


async def test_a_frame_that_holds_no_message_is_an_error_with_a_reason() -> None:
    ours, theirs = socket_pair()
    stream = await FrameStream.open(ours, V.WorkerMessage)
    theirs.sendall(struct.pack(">I", 3) + b"\xff\xff\xff")
    with pytest.raises(FrameInvalidError) as error:
        await stream.receive()
    assert error.value.reason == "FRAME_INVALID"
    stream.close()
    theirs.close()
