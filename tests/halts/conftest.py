"""How many rounds, and from which seed: ``pytest tests/halts --rounds 1000 --seed 0``."""

from __future__ import annotations

import contextlib

import pytest
from tests.halts.plan import AT_ONCE

ROUNDS = 100


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("halts")
    # The rounds of chaos have options of the same names.
    with contextlib.suppress(ValueError):
        group.addoption("--rounds", type=int, default=ROUNDS, help="halts, each with a seed of its own")
        group.addoption("--seed", type=int, default=0, help="the seed of the first; the next ones follow")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seeds" in metafunc.fixturenames:
        # Without this folder among the arguments pytest reads this file too late for its options.
        rounds = metafunc.config.getoption("rounds", ROUNDS)
        first = metafunc.config.getoption("seed", 0)
        seeds = range(first, first + rounds)
        batches = [seeds[start : start + AT_ONCE] for start in range(0, rounds, AT_ONCE)]
        metafunc.parametrize("seeds", batches, ids=lambda seeds: f"seeds-{seeds[0]}-to-{seeds[-1]}")
