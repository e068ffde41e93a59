"""Inference inside the process: the bundled embedding model, and LangChain ``Embeddings`` over it or over the
cluster.

Chosen: onnxruntime and tokenizers alone, on a file whose digest is checked before it is loaded, with weights
in 8 bits so that the repository carries it. Refused: sentence-transformers (needs torch), hub downloads at
first use (nothing may need a network), and dynamic int8 (a text's embedding would change with its batch, and
a replay with it). The batching that a shared replica needs is in ``batching`` and knows nothing of Ray, so it
is tested without a cluster.
"""
