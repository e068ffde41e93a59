"""Calls of chat models: on record, so that a task that is executed again gets the answer that it got before; stoppable
between two tokens; and with the text that is being written sent along.

It sits at ``_generate_with_cache`` and ``_agenerate_with_cache``: the one place through which ``invoke``, ``generate`` and
agents go, after the callbacks are set up and before LangChain's own cache, for which it stands in; and at ``stream`` and
``astream`` for nodes that iterate by themselves. Refused: an ``llm_cache`` (its key leaves out the task, so two equal
questions of one run would get one answer), and the public ``invoke`` (agents bind tools and call what lies below it).
"""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, GenerationChunk
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from fermata.agents.runtime.canonical import digest, jsonable
from fermata.agents.runtime.context import current_run
from fermata.agents.runtime.errors import RunStopped
from fermata.agents.runtime.gate import done, granted
from fermata.agents.runtime.place import Place
from fermata.agents.runtime.run import ActiveRun
from fermata.v1 import run_pb2, worker_pb2

DELTA_SECONDS = 0.05
"""How long pieces of text are collected before they leave as one."""

_FAKES = "langchain_core.language_models.fake"
"""LangChain's fakes stream their text and lose their tool calls on the way; they are never asked to stream."""

_installed = threading.Event()
_serde = JsonPlusSerializer()


def install() -> None:
    """Put every chat model of this process on record. A second call changes nothing."""
    if _installed.is_set():
        return
    _installed.set()
    BaseChatModel.stream = _recorded_stream(BaseChatModel.stream)  # type: ignore[method-assign]
    BaseChatModel.astream = _arecorded_stream(BaseChatModel.astream)  # type: ignore[method-assign]
    BaseChatModel._generate_with_cache = _recorded(BaseChatModel._generate_with_cache)  # type: ignore[method-assign]
    BaseChatModel._agenerate_with_cache = _arecorded(BaseChatModel._agenerate_with_cache)  # type: ignore[method-assign, assignment]


def _recorded(original: Callable[..., ChatResult]) -> Callable[..., ChatResult]:
    @functools.wraps(original)
    def generate(
        self: BaseChatModel,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        run = current_run.get()
        if run is None:
            return original(self, messages, stop=stop, run_manager=run_manager, **kwargs)
        run.check()
        call = _ModelCall(run, self, messages, stop, kwargs)
        if run.may_be_recorded and (found := call.read(granted(run, run.send(model_query=call.query)))):
            return found
        with _writing(run, self, run_manager):
            result = original(self, messages, stop=stop, run_manager=run_manager, **kwargs)
        call.record(result)
        return result

    return generate


def _arecorded(original: Callable[..., Awaitable[ChatResult]]) -> Callable[..., Awaitable[ChatResult]]:
    @functools.wraps(original)
    async def agenerate(
        self: BaseChatModel,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        run = current_run.get()
        if run is None:
            return await original(self, messages, stop=stop, run_manager=run_manager, **kwargs)
        run.check()
        call = _ModelCall(run, self, messages, stop, kwargs)
        if run.may_be_recorded:
            asking = run.send(model_query=call.query)
            await done(asking)
            if found := call.read(granted(run, asking)):
                return found
        with _writing(run, self, run_manager):
            result = await original(self, messages, stop=stop, run_manager=run_manager, **kwargs)
        call.record(result)
        return result

    return agenerate


def _recorded_stream(
    original: Callable[..., Iterator[AIMessageChunk]],
) -> Callable[..., Iterator[AIMessageChunk]]:
    @functools.wraps(original)
    def stream(
        self: BaseChatModel,
        input: Any,  # noqa: A002 - LangChain's name
        config: Any = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        run = current_run.get()
        if run is None or not self._should_stream(async_api=False, **{**kwargs, "stream": True}):
            # What does not stream goes on to ``invoke``, and is recorded there.
            yield from original(self, input, config, stop=stop, **kwargs)
            return
        run.check()
        call = _ModelCall(run, self, self._convert_input(input).to_messages(), stop, kwargs)
        if run.may_be_recorded and (found := call.read(granted(run, run.send(model_query=call.query)))):
            yield _as_chunk(found)
            return
        deltas, whole = _Deltas(run), _Whole()
        for chunk in original(self, input, config, stop=stop, **kwargs):
            deltas.on_llm_new_token("", chunk=whole.add(chunk))
            yield chunk
        deltas.flush()
        call.record(whole.result())

    return stream


def _arecorded_stream(
    original: Callable[..., AsyncIterator[AIMessageChunk]],
) -> Callable[..., AsyncIterator[AIMessageChunk]]:
    @functools.wraps(original)
    async def astream(
        self: BaseChatModel,
        input: Any,  # noqa: A002 - LangChain's name
        config: Any = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        run = current_run.get()
        if run is None or not self._should_stream(async_api=True, **{**kwargs, "stream": True}):
            async for chunk in original(self, input, config, stop=stop, **kwargs):
                yield chunk
            return
        run.check()
        call = _ModelCall(run, self, self._convert_input(input).to_messages(), stop, kwargs)
        if run.may_be_recorded:
            asking = run.send(model_query=call.query)
            await done(asking)
            if found := call.read(granted(run, asking)):
                yield _as_chunk(found)
                return
        deltas, whole = _Deltas(run), _Whole()
        async for chunk in original(self, input, config, stop=stop, **kwargs):
            deltas.on_llm_new_token("", chunk=whole.add(chunk))
            yield chunk
        deltas.flush()
        call.record(whole.result())

    return astream


class _Whole:
    """The message that a stream's chunks make together."""

    def __init__(self) -> None:
        self._message: AIMessageChunk | None = None

    def add(self, chunk: AIMessageChunk) -> ChatGenerationChunk:
        """Take one more chunk; returns it as a generation."""
        self._message = chunk if self._message is None else self._message + chunk
        return ChatGenerationChunk(message=chunk)

    def result(self) -> ChatResult:
        """The whole, as ``invoke`` would have returned it."""
        message = message_chunk_to_message(
            self._message if self._message is not None else AIMessageChunk(content="")
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def _as_chunk(result: ChatResult) -> AIMessageChunk:
    """A recorded answer as a stream of one chunk."""
    message = result.generations[0].message
    facts = message.model_dump(exclude={"type", "tool_calls", "invalid_tool_calls"})
    calls = [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
        for index, call in enumerate(getattr(message, "tool_calls", []))
    ]
    return AIMessageChunk(**facts, tool_call_chunks=calls, chunk_position="last")


class _ModelCall:
    """One call: its key, the digest of what is asked, and its record."""

    def __init__(
        self,
        run: ActiveRun,
        model: BaseChatModel,
        messages: Sequence[BaseMessage],
        stop: list[str] | None,
        kwargs: dict[str, Any],
    ) -> None:
        self._run = run
        self._model = model
        place = Place.of(run, None)
        asked = digest(
            {
                "model": [model._llm_type, jsonable(dict(model._identifying_params))],
                "messages": [jsonable(message) for message in messages],
                "stop": jsonable(stop),
                "params": jsonable({k: v for k, v in kwargs.items() if not k.startswith("ls_")}),
            }
        )
        ordinal = run.ordinal("model", place.scope, place.attempt)
        key = digest({"thread": run.thread, "scope": place.scope, "model": True, "ordinal": ordinal})
        self.query = worker_pb2.ModelQuery(key=key, digest=asked)

    def read(self, reply: worker_pb2.HostReply) -> ChatResult | None:
        """The recorded answer, if there is one."""
        if not reply.model.found:
            return None
        record = _serde.loads_typed((reply.model.result.type, reply.model.result.data))
        return ChatResult(
            generations=[
                ChatGeneration(message=message, generation_info=info)
                for message, info in zip(record["messages"], record["info"], strict=True)
            ],
            llm_output=record["output"],
        )

    def record(self, result: ChatResult) -> None:
        """Put the answer on record with the next commit. One that can't be stored is not recorded; the state will say
        so."""
        try:
            kind, data = _serde.dumps_typed(
                {
                    "messages": [generation.message for generation in result.generations],
                    "info": [jsonable(generation.generation_info) for generation in result.generations],
                    "output": jsonable(result.llm_output),
                }
            )
        except (TypeError, ValueError, RecursionError):
            return
        record = worker_pb2.ModelRecord(
            key=self.query.key,
            model=str(
                getattr(self._model, "model_name", "")
                or getattr(self._model, "model", "")
                or self._model._llm_type
            ),
            digest=self.query.digest,
            result=worker_pb2.Blob(type=kind, data=data),
            tokens=_tokens(result),
        )
        self._run.buffer(lambda commit: commit.models.append(record))


def _tokens(result: ChatResult) -> int:
    """Tokens that were read and written, where the model says so."""
    used = [getattr(generation.message, "usage_metadata", None) or {} for generation in result.generations]
    return sum(int(usage.get("total_tokens", 0)) for usage in used)


class _writing:  # noqa: N801 - used as a function
    """While a model writes: its callbacks include ours, which makes models stream that can."""

    def __init__(self, run: ActiveRun, model: BaseChatModel, run_manager: Any) -> None:
        self._manager = run_manager
        self._deltas: _Deltas | None = None
        if run_manager is not None and not type(model).__module__.startswith(_FAKES):
            self._deltas = _Deltas(run)

    def __enter__(self) -> None:
        if self._deltas is not None:
            self._manager.handlers = [*self._manager.handlers, self._deltas]

    def __exit__(self, *_: object) -> None:
        if self._deltas is not None:
            self._deltas.flush()
            self._manager.handlers = [h for h in self._manager.handlers if h is not self._deltas]


class _Deltas(BaseCallbackHandler, _StreamingCallbackHandler[Any]):
    """Sends text on as it is written, and stops a model between two tokens when its run must not go on."""

    run_inline = True
    raise_error = True

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        self._message_id = ""
        self._text: list[str] = []
        self._sent = time.monotonic()

    def on_llm_new_token(
        self,
        token: str | list[str | dict[str, Any]],
        *,
        chunk: GenerationChunk | ChatGenerationChunk | None = None,
        **kwargs: Any,
    ) -> None:
        """
        :raises RunStopped: where the run must not go on.
        """
        if self._run.stop_cause:
            raise RunStopped(self._run.stop_cause)
        if isinstance(chunk, ChatGenerationChunk):
            self._message_id = chunk.message.id or self._message_id
            token = chunk.message.text
        if isinstance(token, str) and token:
            self._text.append(token)
        if time.monotonic() - self._sent >= DELTA_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what is collected."""
        if self._text:
            delta = run_pb2.TokenDelta(
                run=self._run.name, message_id=self._message_id, text="".join(self._text)
            )
            self._text.clear()
            self._run.post(delta=delta)
        self._sent = time.monotonic()

    def tap_output_aiter(self, run_id: Any, output: Any) -> Any:
        """LangChain's marker for handlers that want a stream; passes it through."""
        return output

    def tap_output_iter(self, run_id: Any, output: Any) -> Any:
        """As ``tap_output_aiter``."""
        return output
