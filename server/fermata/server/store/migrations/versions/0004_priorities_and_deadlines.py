"""Priorities, deadlines, and an index from which runs are leased"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("rank", sa.Integer(), nullable=False, server_default="0"))
    for name in ("deadline", "due"):
        op.add_column("runs", sa.Column(name, sa.Float(), nullable=False, server_default="0"))
    op.add_column("runs", sa.Column("expires", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.drop_index("runs_by_state", "runs")
    op.create_index("runs_to_lease", "runs", ["state", "worker", "in_line", "tenant", "rank", "n"])
    op.create_index("runs_due", "runs", ["due"], sqlite_where=sa.text("due > 0"))
