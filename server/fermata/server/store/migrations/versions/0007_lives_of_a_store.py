"""A store knows which life of its it is in: each restore begins another one"""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    lives = op.create_table(
        "lives",
        sa.Column("n", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("incarnation", sa.String(), nullable=False, unique=True),
        sa.Column("began", sa.Float(), nullable=False, server_default="0"),
        sa.Column("event", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("backed_up", sa.Float(), nullable=False, server_default="0"),
        sa.Column("workers_stopped", sa.Boolean(), nullable=False, server_default="0"),
        sa.Column("settled", sa.Boolean(), nullable=False, server_default="0"),
        sqlite_autoincrement=True,
    )
    # A store's first life has nothing behind it that could be unknown.
    op.bulk_insert(lives, [{"incarnation": secrets.token_hex(8), "settled": True}])
    op.add_column("runs", sa.Column("unsure", sa.Boolean(), nullable=False, server_default="0"))
