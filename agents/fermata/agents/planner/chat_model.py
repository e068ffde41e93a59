"""The planner as a LangChain chat model: bind tools to it, give it messages, get text or tool calls.

Nothing is generated. The reply is a pure function of the messages, the bound tools and the embedding model, so the
same history always gets the same reply. A real chat model replaces it by configuration; graphs do not notice.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field, PrivateAttr

from fermata.agents.inference.embeddings import FermataEmbeddings
from fermata.agents.planner.conversation import read_conversation
from fermata.agents.planner.meaning import Meaning
from fermata.agents.planner.plan import Planner
from fermata.agents.planner.reader.shared import Reader
from fermata.agents.planner.settings import DEFAULT, Settings
from fermata.agents.planner.tools import Tool, digest, make_tools, read_tools

MODEL_NAME: Final = "fermata:planner"
_TOOL_SETS: Final = 32


class PlannerChatModel(BaseChatModel):
    """A chat model that plans without a language model.

    Passages in system messages (``<passage id= source= heading= line=>``) are what questions are answered from and
    where runbooks come from. Every call that is not READ comes with one sentence of why in ``content``.

    :param embeddings: what meaning is compared with; the bundled embedding model if left out.
    :param reader: tells which tools a message asks for; the bundled one if left out, the rules alone if None.
    :param settings: thresholds and weights.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    embeddings: Embeddings = Field(default_factory=FermataEmbeddings, exclude=True)
    settings: Settings = Field(default=DEFAULT, exclude=True)
    reader: Reader | None = Field(default_factory=Reader, exclude=True)

    _meaning: Meaning | None = PrivateAttr(default=None)
    _tool_sets: OrderedDict[str, tuple[Tool, ...]] = PrivateAttr(default_factory=OrderedDict)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def _llm_type(self) -> str:
        return MODEL_NAME

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": MODEL_NAME}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools: LangChain tools, pydantic classes, functions or JSON-schema dicts.

        A tool's effect class is taken from ``metadata["fermata.effect"]``; a bare schema counts as UNSAFE.
        `tool_choice` "none" binds no tool; other choices change nothing, since a call is never forced.
        """
        described = () if tool_choice == "none" else read_tools(tools)
        return self.bind(fermata_tools=described, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        tools = self._tools(kwargs.get("fermata_tools") or ())
        conversation = read_conversation(messages)
        if not conversation.turns:
            return _reply(AIMessage("There is no message to answer."))
        decision = Planner(conversation, tools, self._similarity(), self.settings, self.reader).decide()
        calls = [
            {"name": step.name, "args": dict(step.args), "id": call_id, "type": "tool_call"}
            for call_id, step in decision.steps
        ]
        return _reply(
            AIMessage(
                decision.text,
                tool_calls=calls,
                response_metadata={"model_name": MODEL_NAME, "decision": decision.kind},
            )
        )

    def _tools(self, described: Sequence[dict[str, Any]]) -> tuple[Tool, ...]:
        """Tools of a bound set; their texts are embedded once for each set."""
        key = digest(described)
        with self._lock:
            if key in self._tool_sets:
                self._tool_sets.move_to_end(key)
                return self._tool_sets[key]
        tools = make_tools(described)
        self._similarity().warm(text for t in tools for text in (t.text, t.title))
        with self._lock:
            self._tool_sets[key] = tools
            while len(self._tool_sets) > _TOOL_SETS:
                self._tool_sets.popitem(last=False)
        return tools

    def _similarity(self) -> Meaning:
        with self._lock:
            if self._meaning is None:
                self._meaning = Meaning(self.embeddings)
            return self._meaning


def _reply(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])
