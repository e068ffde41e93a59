"""What the bot is told: tokens from the environment or from files that only their owner can read, and who answers where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fermata.client import LocalError
from fermata.client.config import read_token_file

API_URL = "https://slack.com/api/"
BOT_TOKEN = "SLACK_BOT_TOKEN"  # noqa: S105 - the variable's name
APP_TOKEN = "SLACK_APP_TOKEN"  # noqa: S105
SIGNING_SECRET = "SLACK_SIGNING_SECRET"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Settings:
    """How the bot reaches Slack.

    :param bot_token: ``xoxb-…``.
    :param app_token: ``xapp-…``, for Socket Mode; empty for HTTP.
    :param signing_secret: for HTTP; empty for Socket Mode.
    :param api_url: of Slack's Web API; another one for tests.
    :param channels: the agent of a channel, by the channel's id.
    :param agent: the agent where nothing else says which; empty: the only one, else the bot asks.
    """

    bot_token: str = field(repr=False)
    app_token: str = field(default="", repr=False)
    signing_secret: str = field(default="", repr=False)
    api_url: str = API_URL
    channels: dict[str, str] = field(default_factory=dict)
    agent: str = ""

    @classmethod
    def read(
        cls,
        *,
        http: bool = False,
        api_url: str = "",
        agent: str = "",
        channels: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Settings:
        """From the environment: each token by its variable, or by ``…_FILE`` with a path.

        :raises LocalError: SLACK_TOKEN_MISSING with the variable's name; what ``read_token_file`` raises.
        """
        env = os.environ if environment is None else environment
        return cls(
            bot_token=_secret(env, BOT_TOKEN, "xoxb-"),
            app_token="" if http else _secret(env, APP_TOKEN, "xapp-"),
            signing_secret=_secret(env, SIGNING_SECRET, "") if http else "",
            api_url=api_url or env.get("SLACK_API_URL") or API_URL,
            channels=dict(channels or {}),
            agent=agent,
        )


def _secret(env: Mapping[str, str], variable: str, prefix: str) -> str:
    found = env.get(variable, "").strip()
    path = env.get(f"{variable}_FILE", "")
    if not found and path:
        found = read_token_file(Path(path).expanduser())
    if not found:
        raise LocalError(
            f"Set {variable}, or {variable}_FILE to a file with it (mode 0600). `fermata bot slack --manifest` prints the "
            "manifest from which Slack makes an app with its tokens.",
            reason="SLACK_TOKEN_MISSING",
            metadata={"variable": variable},
        )
    if not found.startswith(prefix):
        raise LocalError(
            f"{variable} should begin with {prefix}; this is another kind of token.",
            reason="SLACK_TOKEN_KIND",
            metadata={"variable": variable},
        )
    return found
