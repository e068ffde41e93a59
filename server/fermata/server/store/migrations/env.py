"""Alembic's entry: runs the migrations over one connection, batched because SQLite can't alter much in place."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine

from fermata.server.store.schema import metadata

engine = create_engine(context.config.get_main_option("sqlalchemy.url") or "")
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
