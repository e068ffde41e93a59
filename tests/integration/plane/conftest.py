"""One real control plane for all tests of this folder."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.plane.harness import Driver, Effects, Plane

from fermata.client import Client
from fermata.client.retry import RetryPolicy
from fermata.v1 import principal_pb2


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    plane = Plane(tmp_path_factory.mktemp("plane") / "data", "--workers", "2")
    yield plane
    assert plane.stop() == 0, plane.tail()


@pytest.fixture
async def client(plane: Plane) -> AsyncIterator[Client]:
    """Patient enough for a server that is killed and started again."""
    patience = RetryPolicy(attempts=60, max_seconds=1.0)
    async with Client(plane.connection(), deadline_seconds=60, retry=patience) as client:
        yield client


@pytest.fixture
def driver(plane: Plane, client: Client) -> Driver:
    return Driver(plane, client)


@pytest.fixture
def effects(tmp_path: Path) -> Effects:
    return Effects(tmp_path / "effects")


@pytest.fixture
def more_effects(tmp_path: Path) -> Callable[[], Effects]:
    """Files for runs beside the first."""
    numbers = itertools.count(1)
    return lambda: Effects(tmp_path / f"effects-{next(numbers)}")


@pytest.fixture
async def as_role(plane: Plane, client: Client) -> AsyncIterator[Callable[..., object]]:
    """Clients of new principals with the given roles."""
    opened: list[Client] = []
    numbers = itertools.count(len(await client.principals.list()))

    async def open_one(*roles: principal_pb2.Role.ValueType) -> Client:
        made = await client.principals.create(
            f"person-{next(numbers)}", kind=principal_pb2.PRINCIPAL_KIND_USER, roles=roles
        )
        opened.append(Client(plane.connection(made.token)))
        return opened[-1]

    yield open_one
    for one in opened:
        await one.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Beside a failure, what the plane said last."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    plane = getattr(item, "funcargs", {}).get("plane")
    if report.failed and isinstance(plane, Plane):
        report.sections.append(("fermata up", plane.tail()))
