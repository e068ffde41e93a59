"""Where in its task a step's call was made: another call in its place is seen"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("steps", sa.Column("place", sa.Text(), nullable=False, server_default=""))
    op.create_index("steps_by_place", "steps", ["tenant", "run", "place"])
