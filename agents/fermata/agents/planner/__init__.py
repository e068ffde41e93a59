"""A planner that needs no language model: a LangChain chat model over embeddings and grammar.

Chosen: a pipeline of pure functions (clauses, intent, ranking of tools, filling of their schemas, decision), and plans
as generators that are replayed over the message history, so that nothing has to be remembered between two calls.
Refused: similarity alone, which takes "we should never drain node-3" for the best of requests; a classifier trained on
tools, which knows only those; and any argument that cannot be traced to words, results, schema or runbook.
"""

from fermata.agents.planner.chat_model import MODEL_NAME, PlannerChatModel

__all__ = ["MODEL_NAME", "PlannerChatModel"]
