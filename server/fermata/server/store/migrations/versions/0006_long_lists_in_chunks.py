"""Long lists in chunks, and the run that a checkpoint's metadata names"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("checkpoints", sa.Column("run_id", sa.Text(), nullable=False, server_default=""))
    op.add_column(
        "channel_blobs", sa.Column("chunks", sa.LargeBinary(), nullable=False, server_default=sa.text("x''"))
    )
    op.create_table(
        "chunks",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("thread", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("parts", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "thread", "digest"),
    )
