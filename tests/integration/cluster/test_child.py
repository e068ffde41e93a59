"""One child of the supervisor: real processes, small ones."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fermata.server.up.child import Child, ChildSpec, ready_line
from fermata.server.up.errors import CONFIG_EXIT_CODE, ChildFailedError
from fermata.server.up.proc import in_session, process_table

READY = "import os, time; os.write({ready_fd}, b'ready\\n'); "

MakeChild = Callable[..., Child]


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def child(tmp_path: Path, told: list[str]) -> MakeChild:
    def make(code: str, **values: Any) -> Child:
        spec = ChildSpec(
            "thing",
            "the thing",
            "the thing is up",
            lambda: [sys.executable, "-S", "-c", code],
            ready_line,
            environment=dict(os.environ),
            **values,
        )
        return Child(spec, logs=tmp_path / "logs", tell=told.append)

    return make


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - processes tell nobody
            await asyncio.sleep(0.01)


async def test_it_is_ready_when_it_says_so_and_ends_on_sigterm(child: MakeChild, told: list[str]) -> None:
    thing = child(READY + "time.sleep(60)")
    task = asyncio.create_task(thing.run())
    await asyncio.wait_for(thing.first_ready.wait(), 20)
    assert told[0].startswith("the thing is up (")
    await thing.stop()
    await asyncio.wait_for(task, 20)
    assert not in_session(process_table(), thing.pid)


async def test_one_that_dies_is_started_again(child: MakeChild, told: list[str]) -> None:
    thing = child(READY + "time.sleep(60)")
    task = asyncio.create_task(thing.run())
    await asyncio.wait_for(thing.first_ready.wait(), 20)
    first = thing.pid
    os.kill(first, signal.SIGKILL)
    await until(lambda: any("again (" in line for line in told))
    assert thing.pid != first
    assert "ended with -9" in told[1]
    await thing.stop()
    await task


async def test_what_it_leaves_in_its_session_is_ended_with_it(child: MakeChild) -> None:
    grandchild = "import subprocess; subprocess.Popen(['sleep', '60']); "
    thing = child(grandchild + READY + "time.sleep(60)")
    task = asyncio.create_task(thing.run())
    await asyncio.wait_for(thing.first_ready.wait(), 20)
    session = thing.pid
    assert len(in_session(process_table(), session)) == 2
    await thing.stop()
    await task
    assert not in_session(process_table(), session)


async def test_one_that_does_not_end_is_killed_after_its_time(child: MakeChild) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    thing = child(deaf + READY + "time.sleep(60)", stop_seconds=0.1)
    task = asyncio.create_task(thing.run())
    await asyncio.wait_for(thing.first_ready.wait(), 20)
    await thing.stop()
    await asyncio.wait_for(task, 20)


async def test_a_configuration_error_ends_it_with_the_childs_own_words(child: MakeChild) -> None:
    thing = child("import sys; sys.stderr.write('error [DATA_TOO_NEW] Upgrade.\\n'); sys.exit(78)")
    with pytest.raises(ChildFailedError) as caught:
        await asyncio.wait_for(thing.run(), 20)
    assert (caught.value.reason, caught.value.message) == ("DATA_TOO_NEW", "Upgrade.")
    assert caught.value.exit_code == CONFIG_EXIT_CODE


async def test_only_the_last_start_is_quoted(child: MakeChild, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "thing.log").write_text("words of yesterday\n")
    thing = child("import sys; print('words of today'); sys.exit(78)")
    with pytest.raises(ChildFailedError) as caught:
        await asyncio.wait_for(thing.run(), 20)
    assert "words of today" in caught.value.message
    assert "yesterday" not in caught.value.message
    assert "words of yesterday" in thing.log.read_text()


async def test_one_that_never_gets_ready_is_given_up_with_its_log(child: MakeChild, told: list[str]) -> None:
    thing = child("raise SystemExit('no luck')")
    with pytest.raises(ChildFailedError) as caught:
        await asyncio.wait_for(thing.run(), 60)
    assert caught.value.reason == "CHILD_FAILED"
    assert "no luck" in caught.value.message
    assert len(told) == 4
