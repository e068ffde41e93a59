"""The knowledge base as agents see it: a LangChain retriever, and passages as text that any chat model can read.

Chosen: the search goes through the run's own channel, so a host needs no credential and sees its agent's collections only. Refused:
a Chroma client in the host, which would need a network address and the right to read everything.
"""

from fermata.agents.retrieval.passages import as_system_text, citations
from fermata.agents.retrieval.retriever import FermataRetriever

__all__ = ["FermataRetriever", "as_system_text", "citations"]
