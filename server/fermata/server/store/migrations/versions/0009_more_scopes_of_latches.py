"""Latches on families of runs, with an end; what each run has used of its limits"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0007"
branch_labels = None
depends_on = None


def _text(name: str, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, server_default=default)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=False, server_default="0")


def _time(name: str) -> sa.Column[float]:
    return sa.Column(name, sa.Float(), nullable=False, server_default="0")


def upgrade() -> None:
    for column in (
        _text("parent"),
        _text("ancestors"),
        _number("tool_calls"),
        _number("super_steps"),
        _number("tokens"),
        _time("wall_limit"),
        _time("worked"),
        _time("at_work_since"),
        _time("work_due"),
        _text("repeated_call"),
        _number("repeats"),
        _text("granted", "{}"),
    ):
        op.add_column("runs", column)
    op.create_index("runs_work_due", "runs", ["work_due"], sqlite_where=sa.text("work_due > 0"))
    op.create_index("runs_by_parent", "runs", ["tenant", "parent"], sqlite_where=sa.text("parent != ''"))
    op.create_table(
        "permits",
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("tenant", "run", "nonce", "key", "step", "tool", "worker")
        ),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("superseded", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "run", "nonce"),
    )
    op.create_index("permits_by_worker", "permits", ["worker", "run"])
    for due in (_time("expires"), _number("on_expiry"), _time("reminded")):
        op.add_column("latches", due)
    op.create_index("latches_in_force", "latches", ["target", "tenant"], sqlite_where=sa.text("released = 0"))
    op.create_index(
        "latches_due", "latches", ["expires"], sqlite_where=sa.text("expires > 0 AND released = 0")
    )
    op.add_column("latch_runs", sa.Column("told", sa.Boolean(), nullable=False, server_default="1"))
    op.create_index("latch_runs_to_tell", "latch_runs", ["latch"], sqlite_where=sa.text("told = 0"))
    op.create_index("latch_runs_by_latch", "latch_runs", ["latch", "stopped"])
    op.create_index("latch_steps_by_latch", "latch_steps", ["latch", "status"])
