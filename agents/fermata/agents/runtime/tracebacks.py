"""Tracebacks for the people who wrote the graph: their frames, and no machinery's."""

from __future__ import annotations

import traceback

DETAIL_BYTES = 8192
"""Where a traceback is cut; its end says what happened, so its beginning goes."""


def traceback_of(error: BaseException) -> str:
    """The traceback without the frames of this package and of LangGraph's machinery, cut at 8 KiB from its beginning."""
    summary = traceback.TracebackException.from_exception(error, compact=True)
    seen: set[int] = set()
    part: traceback.TracebackException | None = summary
    while part is not None and id(part) not in seen:
        seen.add(id(part))
        own = [frame for frame in part.stack if not any(name in frame.filename for name in _MACHINERY)]
        if own:
            part.stack = traceback.StackSummary.from_list(own)
        part = part.__cause__ or part.__context__
    text = "".join(summary.format())
    data = text.encode("utf-8", "replace")
    return text if len(data) <= DETAIL_BYTES else data[-DETAIL_BYTES:].decode("utf-8", "ignore")


_MACHINERY = (
    "/fermata/agents/runtime/",
    "/site-packages/langgraph/",
    "/site-packages/langchain_core/",
    "/asyncio/",
    "/concurrent/futures/",
)
