"""Chat models by name: the one line by which a graph stays free of a provider.

``chat_model("planner")`` looks the name up in the agent file's ``models`` and makes the model that stands there:
``fermata:planner`` needs nothing, everything else is LangChain's ``provider:model``. A name that the agent file does
not list stands for itself.
"""

from __future__ import annotations

import importlib
from typing import Any

from langchain_core.language_models import BaseChatModel

from fermata.agents.runtime.context import current_spec
from fermata.agents.runtime.errors import ModelUnavailableError

PLANNER = "fermata:planner"
"""The bundled planner: deterministic, offline, no language model."""


def chat_model(name: str = "default", **settings: Any) -> BaseChatModel:
    """The chat model for a name.

    :param name: a key of the agent file's ``models``, or a model's own name, such as ``openai:gpt-5``.
    :param settings: for LangChain's model, such as ``temperature``; the planner takes none.
    :raises ModelUnavailableError: MODEL_UNKNOWN, MODEL_PACKAGE_MISSING or MODEL_KEY_MISSING.
    """
    spec = current_spec()
    listed = dict(spec.models) if spec is not None else {}
    model = listed.get(name, PLANNER if name == "default" else name)
    if model == PLANNER:
        # Loaded on demand: the planner brings the embedding model's runtime along.
        planner = importlib.import_module("fermata.agents.planner.chat_model")
        made: BaseChatModel = planner.PlannerChatModel()
        return made
    return _from_langchain(model, settings, sorted(listed))


def _from_langchain(model: str, settings: dict[str, Any], listed: list[str]) -> BaseChatModel:
    from langchain.chat_models import init_chat_model

    try:
        made: BaseChatModel = init_chat_model(model, **settings)
    except ImportError as error:
        raise ModelUnavailableError(
            f"The chat model {model!r} needs a package that is not installed on the worker's machine: {error}.",
            reason="MODEL_PACKAGE_MISSING",
            model=model,
        ) from error
    except ValueError as error:
        if _is_about_a_key(error):
            raise _key_missing(model, error) from error
        names = f" The agent file lists {', '.join(listed)}." if listed else ""
        raise ModelUnavailableError(
            f"There is no chat model {model!r}: name one as provider:model, for example openai:gpt-5, or {PLANNER}.{names}",
            reason="MODEL_UNKNOWN",
            model=model,
        ) from error
    except Exception as error:
        # Providers raise exceptions of their own where a key is missing; anything else is not ours to explain.
        if _is_about_a_key(error):
            raise _key_missing(model, error) from error
        raise
    return made


def _is_about_a_key(error: BaseException) -> bool:
    text = str(error).lower()
    return any(
        word in text for word in ("api_key", "api key", "credential", "access token", "_token", "auth_token")
    )


def _key_missing(model: str, error: BaseException) -> ModelUnavailableError:
    hint = " ".join(str(error).split())[:200]
    return ModelUnavailableError(
        f"The chat model {model!r} wants a key that its environment does not have ({hint}). "
        "Give it in the agent file under secrets, by reference: VARIABLE: env:NAME or file:/path.",
        reason="MODEL_KEY_MISSING",
        model=model,
    )
