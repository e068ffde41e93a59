"""The lives of a store: the one that it was made with, and one more from each restore on.

A backup is a store as it was. Whoever has dealt with the store after that, a worker with a lease or a watcher with a cursor, knows of
a life that the restored store does not, and the numbers that it has (epochs, cursors) are given a second time. So each life has a name
of its own, its incarnation, which goes with those numbers.

Refused: to find a restored store by what is in it, or by the clock. Whoever copies the file by hand has two stores of one life.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update

from fermata.server.store import schema

EPOCH_DIGITS = 10
"""Hex digits of an incarnation from which the epochs of a restored store begin: no lease of another life has the same."""


_INCARNATION = re.compile("[0-9a-f]{16}")


def new_incarnation() -> str:
    """A name for a life that begins."""
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Life:
    """One life. Times are seconds since the epoch, 0 where unknown.

    :param event: number of the last event that it has from the life before.
    :param backed_up: when the backup was made that it began with.
    :param workers_stopped: who restored it says that no worker of before, and no process of one, runs any more.
    :param settled: the server has gone through the runs that it began with.
    """

    incarnation: str
    began: float = 0.0
    event: int = 0
    backed_up: float = 0.0
    workers_stopped: bool = False
    settled: bool = True

    @property
    def first_epoch(self) -> int:
        """What the epochs of the runs that it began with are raised by."""
        return int(self.incarnation[:EPOCH_DIGITS], 16)


class Lives:
    """All lives that a store knows of, the present one last."""

    def __init__(self, lives: list[Life]) -> None:
        self._lives = lives
        self._suffix = f".{lives[-1].incarnation}" if len(lives) > 1 else ""

    @property
    def present(self) -> Life:
        """The one that goes on."""
        return self._lives[-1]

    def cursor(self, position: int) -> str:
        """A place in the order of commits, for those who will come back to it. In a store that was never restored a bare number."""
        return f"{position}{self._suffix}"

    def position(self, cursor: str) -> int | None:
        """The place that a cursor stands for; None where it lies in a life, or in a part of one, that this store does not have.

        :raises ValueError: it is no cursor.
        """
        number, dot, incarnation = cursor.partition(".")
        if (
            not number.isdecimal()
            or not number.isascii()
            or (dot and not _INCARNATION.fullmatch(incarnation))
        ):
            raise ValueError(cursor)
        known = [life.incarnation for life in self._lives]
        if dot and incarnation not in known:
            return None
        place = known.index(incarnation) if dot else 0
        position = int(number)
        return None if any(position > later.event for later in self._lives[place + 1 :]) else position


def load(connection: Any) -> Lives:
    """The store's lives.

    :param connection: a Connection or a Transaction.
    """
    table = schema.lives.c
    rows = connection.execute(select(schema.lives).order_by(table.n)).fetchall()
    return Lives(
        [
            Life(row.incarnation, row.began, row.event, row.backed_up, row.workers_stopped, row.settled)
            for row in rows
        ]
    )


def mark_settled(transaction: Any) -> None:
    """The runs that the present life began with have been gone through."""
    transaction.execute(update(schema.lives).values(settled=True))
