"""The public suite for LangGraph's checkpointers, in full, over a worker's channel and a store on disk."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES

from fermata.server.store import schema


async def test_it_conforms_to_langgraphs_checkpointers_in_all_that_they_may_do(place: Any) -> None:
    @checkpointer_test("fermata")
    async def make() -> Any:
        yield await place.saver()

    report = await validate(make)
    assert set(report.results) == {capability.value for capability in ALL_CAPABILITIES}
    assert all(result.detected and result.passed for result in report.results.values()), report.to_dict()
    assert await place.count(schema.checkpoints) > 0, "it was the store that the suite read from"
