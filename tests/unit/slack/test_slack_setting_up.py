"""Setting the bot up: tokens, scopes, manifest; and what people's words mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fermata.bots.slack import checking
from fermata.bots.slack.bot import Bot
from fermata.bots.slack.manifest import EVENTS, SCOPES, manifest
from fermata.bots.slack.people import notice, person
from fermata.bots.slack.settings import Settings
from fermata.bots.slack.talk import Heard, speaks_to_others, words_of
from fermata.client import Client, Connection, FailedPreconditionError, LocalError, PermissionDeniedError
from fermata.v1 import principal_pb2

TOKENS = {"SLACK_BOT_TOKEN": "xoxb-1", "SLACK_APP_TOKEN": "xapp-1", "SLACK_SIGNING_SECRET": "s3cret"}


def test_tokens_come_from_the_environment_or_from_files_that_only_their_owner_reads(tmp_path: Path) -> None:
    kept = tmp_path / "token"
    kept.write_text("xoxb-from-a-file\n")
    kept.chmod(0o600)
    read = Settings.read(environment={"SLACK_BOT_TOKEN_FILE": str(kept), "SLACK_APP_TOKEN": "xapp-1"})
    assert (read.bot_token, read.app_token, read.signing_secret) == ("xoxb-from-a-file", "xapp-1", "")
    kept.chmod(0o644)
    with pytest.raises(LocalError) as caught:
        Settings.read(environment={"SLACK_BOT_TOKEN_FILE": str(kept), "SLACK_APP_TOKEN": "xapp-1"})
    assert caught.value.reason == "TOKEN_FILE_EXPOSED"


@pytest.mark.parametrize(
    ("missing", "http"),
    [("SLACK_BOT_TOKEN", False), ("SLACK_APP_TOKEN", False), ("SLACK_SIGNING_SECRET", True)],
)
def test_a_token_that_is_missing_is_named(missing: str, http: bool) -> None:
    given = {name: value for name, value in TOKENS.items() if name != missing}
    with pytest.raises(LocalError) as caught:
        Settings.read(http=http, environment=given)
    assert (caught.value.reason, caught.value.metadata["variable"]) == ("SLACK_TOKEN_MISSING", missing)


def test_a_token_of_another_kind_is_refused_and_none_is_ever_shown() -> None:
    with pytest.raises(LocalError) as caught:
        Settings.read(environment=TOKENS | {"SLACK_BOT_TOKEN": "xapp-1"})
    assert caught.value.reason == "SLACK_TOKEN_KIND"
    shown = repr(Settings.read(environment=TOKENS)) + repr(Settings.read(http=True, environment=TOKENS))
    assert not any(secret in shown for secret in TOKENS.values())


def test_the_manifest_asks_for_what_the_bot_uses_and_for_nothing_else() -> None:
    drawn = manifest()
    assert drawn["oauth_config"]["scopes"]["bot"] == sorted(SCOPES)
    assert drawn["settings"]["socket_mode_enabled"]
    by_http = manifest(url="https://bot.example/slack/events")
    assert not by_http["settings"]["socket_mode_enabled"]
    assert str(by_http).count("https://bot.example/slack/events") == 3


class _Slack:
    """Slack's answers to what a check tries."""

    def __init__(self, scopes: str, error: str = "") -> None:
        self.scopes, self.error, self.token = scopes, error, "xapp-1"

    async def auth_test(self) -> Any:
        if self.error:
            from slack_sdk.errors import SlackApiError

            raise SlackApiError("", {"error": self.error})  # type: ignore[no-untyped-call]
        return _Answer({"x-oauth-scopes": self.scopes})

    async def apps_connections_open(self, *, app_token: str) -> Any:
        return {"ok": bool(app_token)}


class _Answer(dict[str, str]):
    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__(team_id="T1", user_id="U0")
        self.headers = headers


class _Fermata:
    def __init__(self, kind: Any, *roles: Any) -> None:
        self.principals = self
        self._caller = principal_pb2.Principal(
            name="tenants/default/principals/slack", kind=kind, roles=roles
        )

    async def caller(self) -> principal_pb2.Principal:
        return self._caller


async def _failing(monkeypatch: pytest.MonkeyPatch, slack: _Slack, fermata: _Fermata) -> list[str]:
    monkeypatch.setattr(checking, "AsyncWebClient", lambda **_: slack)
    found = await checking.check(fermata, Settings("xoxb-1", "xapp-1"))  # type: ignore[arg-type]
    assert all(one.hint for one in found if one.holds is False)
    return [one.what for one in found if one.holds is False]


BOT, OPERATOR = principal_pb2.PRINCIPAL_KIND_BOT, principal_pb2.ROLE_OPERATOR


async def test_a_check_says_which_scopes_are_missing_and_what_the_bot_may_not_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await _failing(monkeypatch, _Slack(",".join(SCOPES)), _Fermata(BOT, OPERATOR)) == []
    lacking = ",".join(set(SCOPES) - {"commands", "im:history"})
    failing = await _failing(
        monkeypatch, _Slack(lacking), _Fermata(BOT, OPERATOR, principal_pb2.ROLE_APPROVER)
    )
    assert [what.split(":")[0] for what in failing[:1]] == ["scope im"]
    assert any("commands" in what for what in failing)
    assert "it has no right to decide by itself" in failing
    failing = await _failing(
        monkeypatch, _Slack("", "invalid_auth"), _Fermata(principal_pb2.PRINCIPAL_KIND_USER)
    )
    assert failing == [
        "Slack takes the bot token",
        "it is a bot, and may act for people",
        "it is an operator",
    ]


async def test_every_event_of_the_manifest_is_heard_and_no_other() -> None:
    async with Client(Connection("127.0.0.1:1")) as client:
        from slack_sdk.web.async_client import AsyncWebClient

        bot = Bot(client, AsyncWebClient(token="xoxb-1"), Settings("xoxb-1", "xapp-1"), team="T1", user="U0")
        heard = {event.split(".")[0] for event in EVENTS}
        assert heard == {"app_home_opened", "app_mention", "app_uninstalled", "message", "tokens_revoked"}
        # One listener each, and those of the command, two kinds of buttons, and modals.
        assert len(bot.app._async_listeners) == len(heard) + 4
        await bot.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<@U0> how is line 3?", "how is line 3?"),
        ("hey <@U0|fermata>, stop", "hey , stop"),
        ("<@U0> is 3 &lt; 4 &amp; 5 &gt; 4?", "is 3 < 4 & 5 > 4?"),
        ("<@U0> see <https://a.example|the page>", "see the page"),
        ("<@U0> tell <@U7>", "tell <@U7>"),
    ],
)
def test_words_are_what_a_person_typed(text: str, words: str) -> None:
    assert words_of(text, "U0") == words


def test_a_reply_that_begins_with_somebody_else_is_not_for_the_bot() -> None:
    assert speaks_to_others("<@U7> what do you think?", "U0")
    assert not speaks_to_others("what does <@U7> think?", "U0")
    assert not speaks_to_others("<@U0> how is line 3?", "U0")


async def test_one_message_is_one_request_and_hangs_on_its_thread() -> None:
    async with Client(Connection("127.0.0.1:1")) as client:
        who = person(client, user="U1", team="T1", channel="C1")
    first, same = Heard(who, "C1", "1.0", "a"), Heard(who, "C1", "1.0", "told again")
    assert first.request_id == same.request_id != Heard(who, "C1", "2.0", "a").request_id
    assert first.hangs_on == "1.0"
    assert Heard(who, "C1", "2.0", "a", thread="1.0").hangs_on == "1.0"
    assert Heard(who, "D1", "2.0", "a", is_direct=True).hangs_on == ""
    assert who.account == "tenants/default/links/slack.T1.U1"


@pytest.mark.parametrize(
    ("failure", "word"),
    [
        (PermissionDeniedError("x", reason="ACCOUNT_NOT_LINKED"), "/fermata link"),
        (PermissionDeniedError("you are a viewer", reason="NOT_APPROVER"), "you are a viewer"),
        (FailedPreconditionError("by ann", reason="APPROVAL_DECIDED"), "Too late: by ann"),
        (FailedPreconditionError("x", reason="APPROVAL_DIGEST_MISMATCH"), "has changed"),
        (FailedPreconditionError("x", reason="SOMETHING_NEW"), "SOMETHING_NEW"),
    ],
)
def test_what_is_refused_is_told_in_words_that_help(failure: Any, word: str) -> None:
    assert word in notice(failure)
