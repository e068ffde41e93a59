"""Settings of fermata up: precedence, and errors that name the place."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from fermata.server.up.errors import CONFIG_EXIT_CODE, StartError
from fermata.server.up.settings import UpSettings, add_flags, load_settings


def test_flags_win_over_the_environment_and_that_over_the_file_and_that_over_defaults(tmp_path: Path) -> None:
    (tmp_path / "fermata.toml").write_text('host = "127.0.0.7"\nport = 1\nworkers = 7\n')
    environment = {"FERMATA_PORT": "2", "FERMATA_WORKERS": "5"}
    settings = load_settings({"data": str(tmp_path), "workers": "3"}, environment, None)
    assert (settings.workers, settings.port, settings.host) == (3, 2, "127.0.0.7")
    assert settings.log_level == "info"


def test_the_file_lies_in_the_data_folder_that_flag_or_environment_names(tmp_path: Path) -> None:
    (tmp_path / "fermata.toml").write_text("port = 4711\n")
    assert load_settings({}, {"FERMATA_DATA": str(tmp_path)}, None).port == 4711


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(StartError) as caught:
        load_settings({}, {}, tmp_path / "missing.toml")
    assert caught.value.reason == "CONFIG_INVALID"
    assert "missing.toml" in caught.value.message
    assert caught.value.exit_code == CONFIG_EXIT_CODE


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    assert load_settings({"data": str(tmp_path)}, {"FERMATA_PORT": ""}, None).port == 7433


@pytest.mark.parametrize(
    ("flags", "environment", "toml", "place"),
    [
        ({"port": "many"}, {}, "", "the flag --port"),
        ({}, {"FERMATA_PORT": "70000"}, "", "the variable FERMATA_PORT"),
        ({}, {}, "workers = 0", "'workers' in"),
        ({}, {}, "prot = 7433", "'prot' in"),
        ({}, {}, "port = ", "can't be read"),
        ({"log_level": "loud"}, {}, "", "the flag --log-level"),
    ],
)
def test_an_error_names_the_place_of_the_value(
    tmp_path: Path, flags: dict[str, str], environment: dict[str, str], toml: str, place: str
) -> None:
    (tmp_path / "fermata.toml").write_text(toml)
    with pytest.raises(StartError) as caught:
        load_settings({"data": str(tmp_path), **flags}, environment, None)
    assert caught.value.reason == "CONFIG_INVALID"
    assert place in caught.value.message


def test_an_unknown_key_is_answered_with_those_that_there_are(tmp_path: Path) -> None:
    (tmp_path / "fermata.toml").write_text("prot = 1\n")
    with pytest.raises(StartError) as caught:
        load_settings({"data": str(tmp_path)}, {}, None)
    assert "port" in caught.value.message


def test_variables_of_other_commands_are_left_alone(tmp_path: Path) -> None:
    load_settings({"data": str(tmp_path)}, {"FERMATA_TOKEN": "secret", "FERMATA_ADDRESS": "x"}, None)


def test_there_is_a_flag_for_each_setting_and_what_is_not_given_is_not_there() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    assert vars(parser.parse_args(["--tls-cert", "c.pem"])) == {"tls_cert": "c.pem"}
    assert vars(parser.parse_args([])) == {}
    every = [f"--{name.replace('_', '-')}" for name in UpSettings.model_fields]
    assert set(every) <= set(parser.format_help().replace("[", " ").split())


def test_the_data_folder_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({"data": "here"}, {}, None).data == tmp_path / "here"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("127.8.9.1", True),
        ("0.0.0.0", False),
        ("example.com", False),
    ],
)
def test_loopback_is_known_by_its_address(tmp_path: Path, host: str, loopback: bool) -> None:
    assert load_settings({"data": str(tmp_path), "host": host}, {}, None).is_loopback is loopback
