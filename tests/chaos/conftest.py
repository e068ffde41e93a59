"""How many rounds, and from which seed: ``pytest tests/chaos --rounds 100 --seed 0``."""

from __future__ import annotations

import pytest

ROUNDS = 10


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--rounds", type=int, default=ROUNDS, help="rounds of chaos, each with a seed of its own")
    group.addoption("--seed", type=int, default=0, help="the seed of the first round; the next ones follow")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        # Without this folder among the arguments pytest reads this file too late for its options.
        rounds = metafunc.config.getoption("rounds", ROUNDS)
        first = metafunc.config.getoption("seed", 0)
        metafunc.parametrize("seed", range(first, first + rounds), ids=lambda seed: f"seed-{seed}")
