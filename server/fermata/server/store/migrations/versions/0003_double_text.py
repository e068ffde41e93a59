"""Runs that wait in line on their thread, and what a cancelled one began from"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "threads", sa.Column("multitask_strategy", sa.Integer(), nullable=False, server_default="0")
    )
    op.add_column("runs", sa.Column("in_line", sa.Boolean(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("successor", sa.Text(), nullable=False, server_default=""))
    op.add_column("runs", sa.Column("rolls_back", sa.Boolean(), nullable=False, server_default="0"))
    # Of the runs that are under way nobody has written down what they began from: -1.
    op.add_column("runs", sa.Column("base", sa.Integer(), nullable=False, server_default="-1"))
    op.create_index("runs_in_line", "runs", ["tenant", "thread", "n"], sqlite_where=sa.text("in_line = 1"))
    op.add_column("checkpoint_writes", sa.Column("run", sa.Text(), nullable=False, server_default=""))
