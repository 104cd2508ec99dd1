"""One account from the environment, where there is no file."""

from pathlib import Path

import pytest

from exporter.config import ENVIRONMENT, ConfigurationError, NotConfigured, Settings, load
from exporter.config.section import HOME
from exporter.tedee.secret import Secret

from .conftest import SECRET

CREDENTIALS = "TEDEE_PERSONAL_KEY, TEDEE_PERSONAL_KEY_FILE, TEDEE_ACCESS_TOKEN or TEDEE_ACCESS_TOKEN_FILE"


def from_environment(**environ: str) -> Settings:
    return load(None, environ, check_secrets=True)


def problems(**environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as told:
        from_environment(**environ)
    return told.value.problems


def test_a_key_alone_is_enough() -> None:
    settings = from_environment(TEDEE_PERSONAL_KEY=SECRET)
    assert [account.name for account in settings.accounts] == ["default"]
    assert settings.accounts[0].credential == ("personal_key", Secret(SECRET))
    assert settings.api.url == "https://api.tedee.com"
    assert settings.sync.interval == 20


def test_an_access_token_alone_is_enough() -> None:
    account = from_environment(TEDEE_ACCESS_TOKEN=SECRET).accounts[0]
    assert account.credential == ("access_token", Secret(SECRET))


@pytest.mark.parametrize("key", ["personal_key_file", "access_token_file"])
def test_the_secret_may_be_in_a_file(tmp_path: Path, key: str) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    account = from_environment(**{f"TEDEE_{key.upper()}": str(file)}).accounts[0]
    assert account.credential == (key, file)


def test_each_of_the_other_variables_has_its_effect() -> None:
    settings = from_environment(
        TEDEE_PERSONAL_KEY=SECRET,
        TEDEE_ACCOUNT="home",
        TEDEE_API_URL="http://localhost:8080",
        TEDEE_API_VERSION="v1.36",
        TEDEE_SYNC_INTERVAL="1m30s",
    )
    assert settings.accounts[0].name == "home"
    assert (settings.api.url, settings.api.version) == ("http://localhost:8080", "v1.36")
    assert settings.sync.interval == 90


def test_an_interval_longer_than_the_default_stale_after_draws_it_out() -> None:
    sync = from_environment(TEDEE_PERSONAL_KEY=SECRET, TEDEE_SYNC_INTERVAL="10m").sync
    assert (sync.interval, sync.stale_after) == (600, 1800)


def test_an_empty_variable_counts_as_not_set() -> None:
    empty = dict.fromkeys(ENVIRONMENT, "")
    assert from_environment(**{**empty, "TEDEE_PERSONAL_KEY": SECRET}) == from_environment(TEDEE_PERSONAL_KEY=SECRET)


@pytest.mark.parametrize(
    "environ",
    [{}, dict.fromkeys(ENVIRONMENT, ""), {"TEDEE_ACCOUNT": "home", "TEDEE_SYNC_INTERVAL": "1m"}],
    ids=["empty", "empty variables", "no key"],
)
def test_without_a_key_nothing_is_configured(environ: dict[str, str]) -> None:
    with pytest.raises(NotConfigured):
        from_environment(**environ)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TEDEE_ACCOUNT", "n" * 201, "must be at most 200 characters long"),
        ("TEDEE_ACCOUNT", "b\udcfcro", "must be text"),
        ("TEDEE_API_URL", "https://api.tedee.com/api", "only scheme, host and port belong here"),
        ("TEDEE_API_URL", f"https://home:{SECRET}@api.tedee.com", "only scheme, host and port belong here"),
        ("TEDEE_API_URL", "http://tedee.example", "http:// would send the key unencrypted; use https://"),
        ("TEDEE_API_VERSION", "37", "must look like v37 or v1.36"),
        (
            "TEDEE_STATE_FILE",
            ":memory:",
            "must be the name of a file; SQLite's :memory: and file: URIs are not supported",
        ),
        ("TEDEE_STATE_FILE", "/", "is a folder; name a file in it, such as state.db"),
        ("TEDEE_STATE_FILE", "~/state.db", HOME),
        ("TEDEE_SYNC_INTERVAL", "20", "is not a duration; write it as in 20s, 5m or 1h30m"),
        (
            "TEDEE_SYNC_INTERVAL",
            "19s",
            "Tedee allows one sync in 20s; a shorter interval would lock the account out of the API",
        ),
    ],
)
def test_a_bad_value_is_told_with_its_variable(variable: str, value: str, message: str) -> None:
    assert problems(**{"TEDEE_PERSONAL_KEY": SECRET, variable: value}) == [f"environment: {variable}: {message}"]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TEDEE_PERSONAL_KEY_FILE", "/nowhere/key", "key file /nowhere/key cannot be read: No such file or directory"),
        ("TEDEE_ACCESS_TOKEN_FILE", "/", "key file / cannot be read: Is a directory"),
        ("TEDEE_PERSONAL_KEY_FILE", "~/key", HOME),
        ("TEDEE_PERSONAL_KEY", " ", "the key is empty"),
        ("TEDEE_PERSONAL_KEY", f'"{SECRET}"', "the key is in quotes; write the key without them"),
        (
            "TEDEE_ACCESS_TOKEN",
            f"{SECRET}\n{SECRET}",
            "the key holds characters that no key has (is it one line, and nothing else?)",
        ),
    ],
)
def test_a_bad_secret_is_told_with_its_variable(variable: str, value: str, message: str) -> None:
    assert problems(**{variable: value}) == [f"environment: {variable}: {message}"]


def test_several_credentials_are_told_by_their_variables() -> None:
    told = problems(TEDEE_PERSONAL_KEY=SECRET, TEDEE_ACCESS_TOKEN="another")
    assert told == [f"environment: needs one of {CREDENTIALS}; it has TEDEE_PERSONAL_KEY and TEDEE_ACCESS_TOKEN"]


def test_everything_wrong_is_told_at_once() -> None:
    told = problems(
        TEDEE_PERSONAL_KEY=SECRET,
        TEDEE_PERSONAL_KEY_FILE="/nowhere/key",
        TEDEE_API_VERSION="37",
        TEDEE_SYNC_INTERVAL="5s",
    )
    assert [line.split(":")[1].split(" ")[1] for line in told] == [
        "needs",
        "TEDEE_PERSONAL_KEY_FILE",
        "TEDEE_API_VERSION",
        "TEDEE_SYNC_INTERVAL",
    ]
    assert SECRET not in "".join(told)
