"""What a run that is ended from outside leaves in doubt: by a halt, a deadline or a later message, where no gate keeper is at hand."""

from __future__ import annotations

from fermata.server.agents.revisions import Revisions
from fermata.server.ledger.gate import GateKeeper
from fermata.server.ledger.limits import Exceeded
from fermata.server.policy.book import PolicyBook
from fermata.server.runs.record import RunRecord
from fermata.server.store.database import Transaction


def _no_limit(transaction: Transaction, run: RunRecord, exceeded: Exceeded) -> None:
    """Nothing is spent by a question."""


def ask_about_doubts(transaction: Transaction, run: RunRecord) -> None:
    """Ask whom policy names about the run's calls in doubt; those about which somebody was asked already are left to that."""
    # A gate keeper is but its caches, and doubts are too rare to miss them.
    GateKeeper(Revisions(), PolicyBook(), _no_limit).ask_about_doubts(transaction, run)
