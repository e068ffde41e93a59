"""Latches: durable holds and halts.

``coverage`` says what a latch covers (pure), ``operations`` sets, settles and lifts them inside transactions. Nobody caches latches:
every gate reads them in its own transaction, and SQLite serialises that transaction against the one that sets a latch.
"""
