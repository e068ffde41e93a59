"""What must not be written into an agent file: secrets.

A spec is stored, listed and shown to everybody who may read agents. Secrets therefore go into it by
reference only, and a value that looks like one is refused before it leaves this machine. Errors name where
it stands, never what it is.
"""

from __future__ import annotations

import re

REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/?[^\0\s][^\0]*")
_SECRET_NAME = re.compile(
    r"(API_?KEY|ACCESS_?KEY|SECRET_?KEY|PRIVATE_?KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"^(sk-|pk_live_|rk_live_|sk_live_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|xapp-|AKIA|ASIA|AIza|hf_|npm_|lsv2_|eyJ[\w-]+\.eyJ)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
)


def is_reference(value: str) -> bool:
    """True for ``env:NAME`` and ``file:PATH``."""
    return REFERENCE.fullmatch(value) is not None


def looks_secret(name: str, value: str) -> bool:
    """True where a variable's name or value says that it is a secret."""
    return bool(value) and bool(_SECRET_NAME.search(name) or _SECRET_VALUE.search(value))
