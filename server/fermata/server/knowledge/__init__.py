"""Knowledge: documents into chunks, chunks into Chroma, questions into cited passages.

Chosen: parse, place and judge purely (``documents``, ``blocks``, ``chunking``, ``lexical``), with Chroma
behind one class (``chroma``) and the embedding model behind one callable, so that ``ingest`` and ``search``
are orchestration alone. A chunk is a range of whole lines of its document, so that a citation is exact and
nothing of a document is lost or doubled. Everything that is known of a document lies with its chunks in
Chroma; there is no second record that could disagree. Refused: overlapping windows of fixed size, which cut
procedures apart, and Chroma's own embedding functions, which download a model.
"""
