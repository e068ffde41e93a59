"""The layout that the build and the type checker rely on: one namespace, four roots, typed leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
ROOTS = ("server", "agents", "bots", "protos")
LEAVES = (
    "server/fermata/server",
    "agents/fermata/agents",
    "bots/fermata/bots",
    "protos/fermata/v1",
    "protos/fermata/client",
)


@pytest.mark.parametrize("root", ROOTS)
def test_no_root_hides_the_others(root: str) -> None:
    assert not (REPOSITORY / root / "fermata" / "__init__.py").exists(), (
        "a namespace package has no __init__.py"
    )
    assert not (REPOSITORY / root / "__init__.py").exists()


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_leaf_says_that_it_is_typed(leaf: str) -> None:
    assert (REPOSITORY / leaf / "py.typed").exists()


def test_the_locks_name_no_host() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (REPOSITORY / lock).read_text()
        assert "://" not in text
        assert "--hash=sha256:" in text


def test_what_runs_is_locked_alike_for_users_and_developers() -> None:
    users, developers = _pins("requirements.lock"), _pins("requirements-dev.lock")
    assert users.items() <= developers.items()
    assert "torch" not in users


def _pins(lock: str) -> dict[str, str]:
    lines = (REPOSITORY / lock).read_text().splitlines()
    pinned = (
        line.split(" ", 1)[0].rstrip("\\ ") for line in lines if line and not line.startswith((" ", "#"))
    )
    return {pin: pin.split("==")[1] for pin in pinned}
