"""Who is started when: the controller's decisions."""

from __future__ import annotations

import pytest

from fermata.server.cluster.roster import MAX_BACKOFF_SECONDS, STABLE_SECONDS, Phase, Roster


@pytest.fixture
def roster() -> Roster:
    return Roster(["embedder", "worker-0"])


def test_everything_is_due_at_the_start(roster: Roster) -> None:
    assert roster.due(0.0) == ["embedder", "worker-0"]


def test_what_is_starting_or_alive_is_not_due(roster: Roster) -> None:
    roster.starting("embedder", 0.0)
    roster.alive("worker-0", 0.0)
    assert roster.due(1e9) == []
    assert roster.seconds_to_next(0.0) is None


def test_after_one_death_the_next_starts_at_once(roster: Roster) -> None:
    roster.alive("worker-0", 0.0)
    assert roster.died("worker-0", 5.0) == 0.0
    assert "worker-0" in roster.due(5.0)


def test_a_row_of_quick_deaths_backs_off_up_to_a_bound(roster: Roster) -> None:
    delays = []
    now = 0.0
    for _ in range(12):
        roster.alive("worker-0", now)
        delays.append(roster.died("worker-0", now))
        now += delays[-1]
    assert delays[:4] == [0.0, 0.1, 0.2, 0.4]
    assert delays[-1] == MAX_BACKOFF_SECONDS


def test_one_that_never_came_to_live_backs_off_from_the_first_time(roster: Roster) -> None:
    roster.starting("worker-0", 0.0)
    assert roster.died("worker-0", 1.0) == 0.1


def test_a_long_life_clears_the_record(roster: Roster) -> None:
    for _ in range(6):
        roster.alive("worker-0", 0.0)
        roster.died("worker-0", 0.0)
    roster.alive("worker-0", 100.0)
    assert roster.died("worker-0", 100.0 + STABLE_SECONDS) == 0.0


def test_a_place_becomes_due_when_its_backoff_is_over(roster: Roster) -> None:
    roster.alive("embedder", 0.0)
    roster.starting("worker-0", 0.0)
    delay = roster.died("worker-0", 10.0)
    assert roster.due(10.0 + delay / 2) == []
    assert roster.seconds_to_next(10.0) == pytest.approx(delay)
    assert roster.due(10.0 + delay) == ["worker-0"]


def test_a_late_notice_of_a_death_changes_nothing(roster: Roster) -> None:
    roster.starting("worker-0", 0.0)
    delay = roster.died("worker-0", 0.0)
    assert roster.died("worker-0", 0.0) == pytest.approx(delay)
    assert roster.phase("worker-0") is Phase.EMPTY


def test_a_late_notice_of_a_start_does_not_empty_a_place(roster: Roster) -> None:
    roster.alive("worker-0", 0.0)
    roster.starting("worker-0", 1.0)
    assert roster.phase("worker-0") is Phase.ALIVE
