"""Latches: durable holds and halts.

``coverage`` says what a latch covers (pure), ``records`` keeps them and their reports inside transactions; they are set and lifted in
``lifecycle``. Nobody caches latches:
every gate reads them in its own transaction, and SQLite serialises that transaction against the one that sets a latch.
"""
