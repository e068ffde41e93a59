"""Resource names: ``tenants/{tenant}/{collection}/{id}``, made and taken apart in one place."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from fermata.server.errors import invalid

ID = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
"""What people may choose as the last part of a name."""

_PART = re.compile(r"[A-Za-z0-9._-]{1,80}")


@dataclass(frozen=True, slots=True)
class Name:
    """A resource name taken apart: ``tenants/{tenant}/{noun}/{id}`` and, for parts of a resource, ``/{part}/{part_id}``."""

    tenant: str
    noun: str
    id: str
    part: str = ""
    part_id: str = ""

    def __str__(self) -> str:
        tail = f"/{self.part}/{self.part_id}" if self.part else ""
        return f"tenants/{self.tenant}/{self.noun}/{self.id}{tail}"


def parse(name: str, noun: str, part: str = "") -> Name:
    """Take ``name`` apart, which must be of ``noun`` (and ``part``).

    :raises DomainError: INVALID_NAME, with the form that was wanted.
    """
    pieces = name.split("/")
    wanted = ["tenants", None, noun, None] + ([part, None] if part else [])
    fits = len(pieces) == len(wanted) and all(
        want == piece if want else bool(_PART.fullmatch(piece))
        for want, piece in zip(wanted, pieces, strict=True)
    )
    if not fits:
        form = f"tenants/{{tenant}}/{noun}/{{id}}" + (f"/{part}/{{id}}" if part else "")
        raise invalid(
            f"{name!r} is not a name of the form {form}.", reason="INVALID_NAME", name=name, form=form
        )
    return Name(pieces[1], noun, pieces[3], part, pieces[5] if part else "")


def parse_tenant(parent: str) -> str:
    """The tenant in ``tenants/{tenant}``.

    :raises DomainError: INVALID_NAME.
    """
    pieces = parent.split("/")
    if len(pieces) != 2 or pieces[0] != "tenants" or not _PART.fullmatch(pieces[1]):
        raise invalid(
            f"{parent!r} is not a name of the form tenants/{{tenant}}.", reason="INVALID_NAME", name=parent
        )
    return pieces[1]


def check_id(noun: str, value: str, shortest: int = 1) -> str:
    """Return an id that a person chose, if it may be one.

    :raises DomainError: INVALID_ID.
    """
    if not ID.fullmatch(value) or len(value) < shortest:
        raise invalid(
            f"{value!r} can't name a {noun}: use {shortest} to 40 of a-z, 0-9 and hyphens, starting with a letter "
            "and not ending with a hyphen.",
            reason="INVALID_ID",
            id=value,
        )
    return value


def new_id() -> str:
    """A fresh id of 64 random bits, short enough to type a prefix of."""
    return secrets.token_hex(8)
