"""The store: one writer, domain operations, an answer only after the commit.

Chosen: SQLAlchemy Core over SQLite in WAL mode with full sync. One thread owns the writing connection and takes operations from
a queue; what has queued up while a flush was under way shares the next one (group commit). An operation is a plain function of a
:class:`~fermata.server.store.database.Transaction`; it decides first and writes last, and what it raises undoes it alone.

Refused: an ORM (objects that are written when nobody looks), aiosqlite (a thread hop per statement), one connection per request
(SQLite serialises writers anyway, and then by sleeping).
"""
