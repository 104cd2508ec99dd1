"""Configuration of one account by environment variables."""

from pathlib import Path

import pytest

from exporter.config import ENVIRONMENT, AccessToken, ConfigurationError, NotConfigured, PersonalKey, Settings, load
from exporter.config.environment import unused_variables
from exporter.config.model import BEGINS_WITH_TILDE
from exporter.secrets import Secret

from .conftest import SECRET

CREDENTIALS = "TEDEE_PERSONAL_KEY, TEDEE_PERSONAL_KEY_FILE, TEDEE_ACCESS_TOKEN or TEDEE_ACCESS_TOKEN_FILE"

NO_URL = "is not a valid connection string of PostgreSQL; in a URL, write @ as %40, : as %3A, / as %2F, % as %25"
UNESCAPED = "has special characters in its user or password; write @ as %40, : as %3A, / as %2F, % as %25"


def from_environment(**environ: str) -> Settings:
    return load(None, environ, check_secrets=True)


def problems(**environ: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        from_environment(**environ)
    return caught.value.problems


def test_personal_key_is_sufficient() -> None:
    settings = from_environment(TEDEE_PERSONAL_KEY=SECRET)
    assert [account.name for account in settings.accounts] == ["default"]
    assert settings.accounts[0].credential == PersonalKey(Secret(SECRET))
    assert settings.api.url == "https://api.tedee.com"
    assert settings.sync.interval == 20


def test_access_token_is_sufficient() -> None:
    account = from_environment(TEDEE_ACCESS_TOKEN=SECRET).accounts[0]
    assert account.credential == AccessToken(Secret(SECRET))


@pytest.mark.parametrize(
    ("variable", "kind"), [("TEDEE_PERSONAL_KEY_FILE", PersonalKey), ("TEDEE_ACCESS_TOKEN_FILE", AccessToken)]
)
def test_secret_can_be_in_a_file(tmp_path: Path, variable: str, kind: type[PersonalKey | AccessToken]) -> None:
    file = tmp_path / "key"
    file.write_text(f"{SECRET}\n")
    account = from_environment(**{variable: str(file)}).accounts[0]
    assert account.credential == kind(file)


def test_every_other_variable_has_its_effect() -> None:
    settings = from_environment(
        TEDEE_PERSONAL_KEY=SECRET,
        TEDEE_ACCOUNT="home",
        TEDEE_API_URL="http://localhost:8080",
        TEDEE_API_VERSION="v1.36",
        TEDEE_SYNC_INTERVAL="1m30s",
        TEDEE_DEVICES_INTERVAL="5m",
        TEDEE_EVENTS="true",
        TEDEE_PERSONAL_KEY_EXPIRES="2027-11-30",
    )
    assert settings.accounts[0].credential == PersonalKey(Secret(SECRET), 1827532800.0)
    assert settings.devices.interval == 300
    assert settings.events.enabled
    assert settings.accounts[0].name == "home"
    assert (settings.api.url, settings.api.version) == ("http://localhost:8080", "v1.36")
    assert settings.sync.interval == 90


@pytest.mark.parametrize(("text", "enabled"), [("true", True), ("True", True), ("false", False), ("FALSE", False)])
def test_events_are_enabled_by_true(text: str, enabled: bool) -> None:
    assert from_environment(TEDEE_PERSONAL_KEY=SECRET, TEDEE_EVENTS=text).events.enabled is enabled


def test_long_interval_extends_the_default_stale_after() -> None:
    sync = from_environment(TEDEE_PERSONAL_KEY=SECRET, TEDEE_SYNC_INTERVAL="10m").sync
    assert (sync.interval, sync.stale_after) == (600, 1800)


def test_empty_variable_counts_as_not_set() -> None:
    empty = dict.fromkeys(ENVIRONMENT, "")
    assert from_environment(**{**empty, "TEDEE_PERSONAL_KEY": SECRET}) == from_environment(TEDEE_PERSONAL_KEY=SECRET)


@pytest.mark.parametrize(
    "environ",
    [{}, dict.fromkeys(ENVIRONMENT, ""), {"TEDEE_ACCOUNT": "home", "TEDEE_SYNC_INTERVAL": "1m"}],
    ids=["empty", "empty variables", "no key"],
)
def test_environment_without_a_key_is_not_configured(environ: dict[str, str]) -> None:
    with pytest.raises(NotConfigured):
        from_environment(**environ)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TEDEE_ACCOUNT", "n" * 201, "must be at most 200 characters long"),
        ("TEDEE_ACCOUNT", "b\udcfcro", "is not valid UTF-8"),
        ("TEDEE_API_URL", "https://api.tedee.com/api", "must have only a scheme, a host and a port"),
        ("TEDEE_API_URL", f"https://home:{SECRET}@api.tedee.com", "must have only a scheme, a host and a port"),
        ("TEDEE_API_URL", "http://tedee.example", "http:// would send the key unencrypted; use https://"),
        ("TEDEE_API_VERSION", "37", "must look like v37 or v1.36"),
        (
            "TEDEE_STATE_FILE",
            ":memory:",
            "must be the name of a file; SQLite's :memory: and file: URIs are not supported",
        ),
        ("TEDEE_STATE_FILE", "/", "is a folder; name a file in it, such as state.db"),
        ("TEDEE_STATE_FILE", "~/state.db", BEGINS_WITH_TILDE),
        ("TEDEE_STATE_URL", "http://db/tedee", "is not a URL such as postgresql://user@host/database"),
        ("TEDEE_STATE_URL", "postgresql://db/tedee?no=option", NO_URL),
        ("TEDEE_STATE_URL", "postgresql://tedee:pa@hunter2@db/tedee", UNESCAPED),
        ("TEDEE_STATE_URL", "postgresql://tedee:1/hunter@db/tedee", UNESCAPED),
        ("TEDEE_STATE_URL", "postgresql://tedee:hu@hunter:123x@db/tedee", UNESCAPED),
        ("TEDEE_DEVICES_INTERVAL", "600", "is not a duration; write it with its unit, as in 20s or 5m"),
        ("TEDEE_DEVICES_INTERVAL", "4m", "must be between 5m and 24h"),
        ("TEDEE_EVENTS", "1", "must be true or false"),
        ("TEDEE_EVENTS", "yes please", "must be true or false"),
        ("TEDEE_PERSONAL_KEY_EXPIRES", "30.11.2027", "is not a date; write it as in 2027-11-30"),
        ("TEDEE_PERSONAL_KEY_EXPIRES", "2027-02-29", "is not a date; write it as in 2027-11-30"),
        ("TEDEE_SYNC_INTERVAL", "20", "is not a duration; write it with its unit, as in 20s or 5m"),
        (
            "TEDEE_SYNC_INTERVAL",
            "19s",
            "Tedee allows one sync in 20s; a shorter interval would lock the account out of the API",
        ),
    ],
)
def test_invalid_value_is_reported_with_its_variable(variable: str, value: str, message: str) -> None:
    assert problems(**{"TEDEE_PERSONAL_KEY": SECRET, variable: value}) == [f"environment: {variable}: {message}"]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("TEDEE_PERSONAL_KEY_FILE", "/nowhere/key", "key file /nowhere/key cannot be read: No such file or directory"),
        ("TEDEE_ACCESS_TOKEN_FILE", "/", "key file / cannot be read: Is a directory"),
        ("TEDEE_PERSONAL_KEY_FILE", "~/key", BEGINS_WITH_TILDE),
        ("TEDEE_PERSONAL_KEY", " ", "the key is empty"),
        ("TEDEE_PERSONAL_KEY", f'"{SECRET}"', "the key is in quotes; write the key without them"),
        (
            "TEDEE_ACCESS_TOKEN",
            f"{SECRET}\n{SECRET}",
            "the key contains invalid characters, such as spaces or line breaks",
        ),
    ],
)
def test_invalid_secret_is_reported_with_its_variable(variable: str, value: str, message: str) -> None:
    assert problems(**{variable: value}) == [f"environment: {variable}: {message}"]


def test_expiry_is_only_for_personal_keys() -> None:
    message = "is for personal keys; other credentials report their expiry themselves"
    assert problems(TEDEE_ACCESS_TOKEN=SECRET, TEDEE_PERSONAL_KEY_EXPIRES="2027-11-30") == [
        f"environment: TEDEE_PERSONAL_KEY_EXPIRES: {message}"
    ]


def test_several_credentials_are_reported_by_variable() -> None:
    messages = problems(TEDEE_PERSONAL_KEY=SECRET, TEDEE_ACCESS_TOKEN="another")
    present = "TEDEE_PERSONAL_KEY and TEDEE_ACCESS_TOKEN"
    assert messages == [f"environment: needs exactly one of {CREDENTIALS}; it has {present}"]


def test_all_errors_of_variables_are_reported_at_once() -> None:
    messages = problems(
        TEDEE_PERSONAL_KEY=SECRET,
        TEDEE_PERSONAL_KEY_FILE="/nowhere/key",
        TEDEE_API_VERSION="37",
        TEDEE_SYNC_INTERVAL="5s",
    )
    assert [line.split(":")[1].split(" ")[1] for line in messages] == [
        "needs",
        "TEDEE_PERSONAL_KEY_FILE",
        "TEDEE_API_VERSION",
        "TEDEE_SYNC_INTERVAL",
    ]
    assert SECRET not in "".join(messages)


# Variables without effect


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("TEDEE_SYNC_INTERVALL", "TEDEE_SYNC_INTERVAL"),
        ("TEDEE_INTERVAL", "TEDEE_SYNC_INTERVAL"),
        ("TEDEE_PERSONALKEY", "TEDEE_PERSONAL_KEY"),
        ("TEDEE_PERSONAL_ACCESS_KEY", "TEDEE_PERSONAL_KEY"),
        ("TEDEE_API_KEY", "TEDEE_PERSONAL_KEY"),
        ("TEDEE_KEY", "TEDEE_PERSONAL_KEY"),
        ("tedee_personal_key", "TEDEE_PERSONAL_KEY"),
        ("TEDEE_KEY_FILE", "TEDEE_PERSONAL_KEY_FILE"),
        ("TEDEE_PERSONAL_KEYFILE", "TEDEE_PERSONAL_KEY_FILE"),
        ("TEDEE_TOKEN", "TEDEE_ACCESS_TOKEN"),
        ("TEDEE_ACCESSTOKEN_FILE", "TEDEE_ACCESS_TOKEN_FILE"),
        ("TEDEE_ACCOUNT_NAME", "TEDEE_ACCOUNT"),
        ("TEDEE_URL", "TEDEE_API_URL"),
        ("TEDEE_STATEFILE", "TEDEE_STATE_FILE"),
    ],
)
def test_unknown_variable_gets_the_nearest_suggestion(name: str, suggestion: str) -> None:
    assert unused_variables({name: SECRET}) == [f"environment: {name}: unknown variable; did you mean {suggestion}?"]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("TEDEE_EVENTS_INTERVAL", "interval below events"),
        ("TEDEE_SYNC_STALE_AFTER", "stale_after below sync"),
        ("tedee_api_timeout", "timeout below api"),
    ],
)
def test_variable_of_an_option_for_files_only_names_the_option(name: str, key: str) -> None:
    assert unused_variables({name: "20s"}) == [
        f"environment: {name}: unknown variable; a configuration file has this option: {key}"
    ]


@pytest.mark.parametrize("name", ["TEDEE_LOG_LEVEL", "TEDEE_EXPORTER_LOG_LEVEL", "TEDEE_PORT", "TEDEE_NAME"])
def test_unknown_variable_without_suggestion_lists_all(name: str) -> None:
    assert unused_variables({name: "10333"}) == [
        f"environment: {name}: unknown variable; known variables: {', '.join(ENVIRONMENT)}"
    ]


SERVICE_LINKS = {
    "SERVICE_HOST": "10.0.0.7",
    "SERVICE_PORT": "10333",
    "SERVICE_PORT_METRICS": "10333",
    "PORT": "tcp://10.0.0.7:10333",
    "PORT_10333_TCP": "tcp://10.0.0.7:10333",
    "PORT_10333_TCP_PROTO": "tcp",
    "PORT_10333_TCP_PORT": "10333",
    "PORT_10333_TCP_ADDR": "10.0.0.7",
    "NAME": "/prometheus/tedee",
    "ENV_PATH": "/usr/bin",
}


@pytest.mark.parametrize("service", ["TEDEE", "TEDEE_EXPORTER", "TEDEE_GRAFANA"])
def test_service_links_cause_no_warning(service: str) -> None:
    environ = {f"{service}_{name}": value for name, value in SERVICE_LINKS.items()}
    assert unused_variables(environ) == []
    assert unused_variables(environ, "--config.file") == []


def test_known_variables_cause_warnings_only_with_a_file() -> None:
    environ = {**dict.fromkeys(ENVIRONMENT, SECRET), "TEDEE_ACCOUNT": "", "BEGINS_WITH_TILDE": "/", "XTEDEE_KEY": "x"}
    assert unused_variables(environ) == []
    assert unused_variables(environ, "--config.file") == [
        f"environment: {name}: has no effect with --config.file" for name in ENVIRONMENT if name != "TEDEE_ACCOUNT"
    ]


@pytest.mark.parametrize(("text", "is_enabled"), [("true", True), ("YES", True), ("on", True), ("No", False)])
def test_switch_takes_the_words_of_yaml(text: str, is_enabled: bool) -> None:
    assert from_environment(TEDEE_PERSONAL_KEY=SECRET, TEDEE_EVENTS=text).events.enabled is is_enabled


@pytest.mark.parametrize(
    ("expires", "is_past"), [("0001-01-01", True), ("2024-02-29", True), ("2999-11-30", False), ("", False)]
)
def test_load_warns_about_a_key_that_has_expired(expires: str, is_past: bool) -> None:
    warnings: list[str] = []
    load(None, {"TEDEE_PERSONAL_KEY": SECRET, "TEDEE_PERSONAL_KEY_EXPIRES": expires}, warn=warnings.append)
    problem = "account 'default': expires: is in the past; set the date of the present personal key"
    assert warnings == [problem] * is_past


@pytest.mark.parametrize(("options", "is_unused"), [("interval: 30s", True), ("interval: 30s, enabled: true", False)])
def test_load_warns_about_an_interval_of_disabled_events(tmp_path: Path, options: str, is_unused: bool) -> None:
    path = tmp_path / "tedee.yml"
    path.write_text(f"events: {{{options}}}\naccounts: [{{name: home, personal_key: {SECRET}}}]\n")
    path.chmod(0o600)
    warnings: list[str] = []
    load(path, {}, warn=warnings.append)
    assert warnings == ["events.interval: has no effect unless events.enabled is true"] * is_unused


def test_load_warns_about_unused_variables(tmp_path: Path) -> None:
    path = tmp_path / "tedee.yml"
    path.write_text(f"accounts: [{{name: home, personal_key: {SECRET}}}]\n")
    path.chmod(0o600)
    warnings: list[str] = []
    load(path, {"TEDEE_STATE_FILE": "/state.db", "TEDEE_X_KEY": SECRET}, warn=warnings.append)
    assert warnings == [
        "environment: TEDEE_STATE_FILE: has no effect with --config.file",
        "environment: TEDEE_X_KEY: unknown variable; did you mean TEDEE_PERSONAL_KEY?",
    ]
