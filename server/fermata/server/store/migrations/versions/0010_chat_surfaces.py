"""What chat surfaces keep here: accounts, places, and the messages that show things"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _row_number() -> sa.Column[int]:
    return sa.Column("n", sa.Integer(), primary_key=True, autoincrement=True)


def upgrade() -> None:
    op.create_table(
        "links",
        *(_text(name) for name in ("tenant", "id", "principal", "created_by")),
        sa.Column("created", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id"),
    )
    op.create_table(
        "link_codes",
        *(_text(name) for name in ("tenant", "link", "hash")),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "link"),
    )
    op.create_table(
        "places",
        _row_number(),
        *(
            _text(name)
            for name in ("tenant", "id", "surface", "team", "channel", "message", "thread", "agent")
        ),
        sa.UniqueConstraint("tenant", "id"),
        sa.UniqueConstraint("tenant", "thread"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "cards",
        _row_number(),
        *(_text(name) for name in ("tenant", "surface", "subject", "place", "message", "digest", "shown")),
        sa.Column("final", sa.Boolean(), nullable=False),
        _text("etag"),
        sa.Column("updated", sa.Float(), nullable=False),
        sa.UniqueConstraint("tenant", "surface", "subject", "place"),
        sqlite_autoincrement=True,
    )
    op.create_index("cards_open", "cards", ["tenant", "surface", "final"])
