"""An agent as it may exist before Fermata: LangChain's ``create_agent`` with its own human-in-the-loop middleware."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool


class OneCall(BaseChatModel):
    """Makes the calls that the message lists, then repeats what the tools said."""

    @property
    def _llm_type(self) -> str:
        return "one-call"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> OneCall:
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        answers = [message for message in messages if isinstance(message, ToolMessage)]
        if answers:
            reply = AIMessage(content="; ".join(str(message.content) for message in answers))
        else:
            human = next(message for message in reversed(messages) if isinstance(message, HumanMessage))
            calls = [
                {"name": "send", "args": args, "id": f"send-{i}", "type": "tool_call"}
                for i, args in enumerate(json.loads(str(human.content)))
            ]
            reply = AIMessage(content="I would like to send something.", tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=reply)])


@tool
def send(mark: str, to: str) -> str:
    """Send a letter."""
    with Path(mark).open("a") as file:
        file.write(f"send {to}\n")
    return f"sent to {to}"


graph = create_agent(
    OneCall(), tools=[send], middleware=[HumanInTheLoopMiddleware(interrupt_on={"send": True})]
)
