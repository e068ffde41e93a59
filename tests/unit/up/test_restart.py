"""What is done about a child that has ended."""

from __future__ import annotations

from fermata.server.up.restart import (
    MAX_BACKOFF_SECONDS,
    MAX_FAILED_STARTS,
    STABLE_SECONDS,
    GiveUp,
    Restart,
    after_exit,
)


def test_a_configuration_error_is_never_tried_again() -> None:
    assert after_exit(exit_code=78, lived_seconds=1e6, failures=0, was_ready=True) == GiveUp()


def test_deaths_in_a_row_wait_longer_and_longer_up_to_a_bound() -> None:
    failures, delays = 0, []
    for _ in range(12):
        decision = after_exit(exit_code=-9, lived_seconds=1.0, failures=failures, was_ready=True)
        assert isinstance(decision, Restart)
        failures = decision.failures
        delays.append(decision.after_seconds)
    assert delays[:3] == [0.25, 0.5, 1.0]
    assert delays[-1] == MAX_BACKOFF_SECONDS


def test_one_that_has_lived_starts_anew_from_the_shortest_wait() -> None:
    decision = after_exit(exit_code=1, lived_seconds=STABLE_SECONDS, failures=9, was_ready=True)
    assert decision == Restart(0.25, 1)


def test_what_was_never_ready_is_given_up_after_a_few_deaths() -> None:
    failures = MAX_FAILED_STARTS - 1
    assert after_exit(exit_code=1, lived_seconds=0.1, failures=failures, was_ready=False) == GiveUp()
    assert isinstance(after_exit(exit_code=1, lived_seconds=0.1, failures=failures, was_ready=True), Restart)
