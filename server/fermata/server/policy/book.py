"""The policies in force, read inside the transaction that asks and parsed once for each text."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, select

from fermata.server.policy.parse import parse_policy
from fermata.server.policy.rules import Policy
from fermata.server.store import schema

KEPT_TEXTS = 64

_IN_FORCE = select(schema.policies).where(schema.policies.c.tenant == bindparam("of_tenant"))


class PolicyBook:
    """Parsed tenant policies by etag. Which one is in force is never kept: every gate reads it anew."""

    def __init__(self) -> None:
        self._parsed: dict[str, Policy] = {}

    def in_force(self, connection: Any, tenant: str) -> Policy | None:
        """The tenant's policy now; None where none was ever set.

        :param connection: a Transaction or a Connection.
        """
        row = connection.execute(_IN_FORCE, {"of_tenant": tenant}).first()
        if row is None:
            return None
        if row.etag not in self._parsed:
            while len(self._parsed) >= KEPT_TEXTS:
                self._parsed.pop(next(iter(self._parsed)))
            self._parsed[row.etag] = parse_policy(row.text)
        return self._parsed[row.etag]
