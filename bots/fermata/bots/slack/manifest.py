"""The app's manifest, with the least scopes, and which each is for."""

from __future__ import annotations

from typing import Any

SCOPES = {
    "app_mentions:read": "hear who mentions it",
    "channels:history": "hear replies in its threads, and find its own messages again",
    "groups:history": "the same in private channels",
    "im:history": "hear direct messages",
    "chat:write": "answer",
    "commands": "/fermata",
}
"""Scope to what the bot needs it for."""

EVENTS = (
    "app_home_opened",
    "app_mention",
    "app_uninstalled",
    "message.channels",
    "message.groups",
    "message.im",
    "tokens_revoked",
)


def manifest(*, url: str = "") -> dict[str, Any]:
    """What Slack makes the app from.

    :param url: where Slack reaches the bot by HTTP; empty for Socket Mode.
    """
    command: dict[str, Any] = {
        "command": "/fermata",
        "description": "Run, approve, hold and halt agents",
        "usage_hint": "help | run | status | halt | hold | release | link",
        "should_escape": False,
    }
    subscriptions: dict[str, Any] = {"bot_events": list(EVENTS)}
    interactivity: dict[str, Any] = {"is_enabled": True}
    if url:
        command["url"] = url
        subscriptions["request_url"] = url
        interactivity["request_url"] = url
    return {
        "display_information": {
            "name": "Fermata",
            "description": "AI agents that ask before they act, and stop when told.",
        },
        "features": {
            "app_home": {
                "home_tab_enabled": True,
                "messages_tab_enabled": True,
                "messages_tab_read_only_enabled": False,
            },
            "bot_user": {"display_name": "fermata", "always_online": False},
            "slash_commands": [command],
        },
        "oauth_config": {"scopes": {"bot": sorted(SCOPES)}},
        "settings": {
            "event_subscriptions": subscriptions,
            "interactivity": interactivity,
            "org_deploy_enabled": False,
            "socket_mode_enabled": not url,
            "token_rotation_enabled": False,
        },
    }
