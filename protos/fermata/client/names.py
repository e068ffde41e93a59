"""Resource names: ``tenants/{tenant}/{collection}/{id}``.

People and scripts say ``r-81f3``; the API wants the whole name. A whole name passes through unchanged, also
one of another tenant.
"""

from __future__ import annotations

from .errors import LocalError


def tenant_name(tenant: str) -> str:
    """``tenants/{tenant}``."""
    return tenant if tenant.startswith("tenants/") else f"tenants/{tenant}"


def full_name(tenant: str, collection: str, name: str) -> str:
    """The whole name of ``name`` in ``collection`` (such as ``runs``).

    :raises LocalError: NAME_MALFORMED where it is empty, or is the name of another kind of thing.
    """
    if not name:
        raise LocalError(
            f"A name is missing: it should be {tenant_name(tenant)}/{collection}/ID, or the ID alone.",
            reason="NAME_MALFORMED",
            metadata={"collection": collection},
        )
    if "/" not in name:
        return f"{tenant_name(tenant)}/{collection}/{name}"
    parts = name.split("/")
    if len(parts) < 4 or parts[0] != "tenants" or parts[2] != collection or not all(parts):
        raise LocalError(
            f"{name!r} names none of {collection}: it should be {tenant_name(tenant)}/{collection}/ID.",
            reason="NAME_MALFORMED",
            metadata={"name": name, "collection": collection},
        )
    return name


def last_part(name: str) -> str:
    """The ID at the end of a resource name."""
    return name.rsplit("/", 1)[-1]
