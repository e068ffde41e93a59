"""Who descends from whom, read from a process table."""

from __future__ import annotations

import os

from fermata.server.up.proc import ProcessEntry, descendants, in_session, process_table

TABLE = [
    ProcessEntry(1, 0, 1, "S"),
    ProcessEntry(10, 1, 10, "S"),
    ProcessEntry(11, 10, 11, "R"),
    ProcessEntry(12, 11, 11, "S"),
    ProcessEntry(13, 12, 13, "Z"),
    ProcessEntry(14, 13, 13, "S"),
    ProcessEntry(20, 1, 11, "S"),
]


def test_descendants_are_found_at_any_depth_and_in_any_session() -> None:
    assert {entry.pid for entry in descendants(TABLE, 10)} == {11, 12, 14}


def test_a_session_is_found_also_where_the_parent_is_gone() -> None:
    assert {entry.pid for entry in in_session(TABLE, 11)} == {11, 12, 20}


def test_who_has_ended_is_not_counted() -> None:
    assert not in_session([ProcessEntry(13, 12, 13, "Z")], 13)


def test_the_real_table_has_this_process_under_its_parent() -> None:
    me = next(entry for entry in process_table() if entry.pid == os.getpid())
    assert me.parent == os.getppid()
    assert me.session == os.getsid(0)
