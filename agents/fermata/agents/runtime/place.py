"""Where in a graph a call is made, and how to say it so that it is the same after a crash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables.config import var_child_runnable_config

from fermata.agents.runtime.run import ActiveRun


def task_of(config: Mapping[str, Any] | None) -> str:
    """The LangGraph task that a config tells, else that of the calling context; empty outside of any."""
    return str(_configurable(config).get("__pregel_task_id") or "")


def _configurable(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    told: Mapping[str, Any] = (config or {}).get("configurable") or {}
    if "__pregel_task_id" in told:
        return told
    return (var_child_runnable_config.get() or {}).get("configurable") or {}


@dataclass(frozen=True)
class Place:
    """Where in the graph a call is made. ``scope`` is the part of it that is the same after a crash."""

    namespace: str
    task: str
    scope: str
    attempt: str
    read: Any

    @classmethod
    def of(cls, run: ActiveRun, config: Mapping[str, Any] | None) -> Place:
        """The place that a config tells, else that of the calling context."""
        conf = _configurable(config)
        namespace = str(conf.get("checkpoint_ns") or "")
        parts = namespace.split("|") if namespace else []
        stable = 0
        while stable < len(parts) and run.keeps("|".join(parts[:stable])):
            stable += 1
        scope = "|".join(parts[:stable] + [part.split(":")[0] for part in parts[stable:]])
        info = getattr(conf.get("__pregel_runtime"), "execution_info", None)
        return cls(
            namespace=namespace,
            task=str(conf.get("__pregel_task_id") or ""),
            scope=scope,
            attempt=str(getattr(info, "node_attempt", 1)),
            read=conf.get("__pregel_read"),
        )

    def messages(self) -> list[BaseMessage]:
        """The conversation, where the graph keeps one."""
        if self.read is None:
            return []
        try:
            found = self.read("messages")
        except (KeyError, ValueError):
            return []
        return (
            [message for message in found if isinstance(message, BaseMessage)]
            if isinstance(found, list)
            else []
        )
