"""Configuration files: valid ones, and the error messages of invalid ones."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import yaml
from msgspec import Struct

from exporter.config import AccessToken, ConfigurationError, LockSelection, PersonalKey, Settings, load
from exporter.config.model import BEGINS_WITH_TILDE
from exporter.config.settings import Api, Devices, Events, Sync
from exporter.secrets import Secret, safe_path

from .conftest import EXAMPLE, SECRET, TESTDATA

GOOD = sorted((TESTDATA / "good").glob("*.yml"))

CREDENTIALS = "personal_key, personal_key_file, access_token, access_token_file or oauth"
ACCOUNT_KEYS = "name, personal_key, personal_key_file, access_token, access_token_file, oauth, expires, locks"
ONE_USER = "Tedee counts calls by user, so each user must be one account"
NOT_A_NUMBER = "must be a whole number; write it as a decimal number without leading zeros and without quotes"
NOT_A_DURATION = "is not a duration; write it as in 20s, 5m or 1h30m"
TOO_OFTEN = "Tedee allows one sync in 20s; a shorter interval would lock the account out of the API"
NOT_A_DATE = "is not a date; write it as in 2027-11-30"
HALF_PAIR = "contains half of a surrogate pair"
NOT_SUPPORTED = "anchors, aliases and tags are not supported; put text that begins with &, * or ! in quotes"

# All errors of each file in testdata/bad, without the path of the file.
BAD: dict[str, list[str]] = {
    "access-token-and-key": [
        f":2: accounts[0]: needs exactly one of {CREDENTIALS}; it has personal_key and access_token",
    ],
    "account-is-text": [
        ":2: accounts[0]: must be a mapping of keys to values",
    ],
    "account-without-credentials": [
        f":2: accounts[0]: needs one of {CREDENTIALS}; it has none",
    ],
    "account-without-name": [
        ":2: accounts[0].name: is missing",
    ],
    "accounts-are-a-mapping": [
        ":1: accounts: must be a list; write a dash and a space before each entry",
    ],
    "accounts-have-no-value": [
        ":1: accounts: has no value",
    ],
    "accounts-missing": [
        ":1: accounts: is missing",
    ],
    "account-name-without-a-space": [
        (
            ":3:17: is not valid YAML: mapping values are not allowed here; check this line and the one above: a "
            "space is missing after ':' or '-', the indentation differs, or text that contains ': ' needs quotes"
        ),
    ],
    "alias": [
        f":3:19: {NOT_SUPPORTED}",
    ],
    "blank-texts": [
        ":2: accounts[0].name: must not be blank",
        ":4: accounts[0].oauth.client_id: must not be blank",
        ":6: accounts[0].oauth.scope: must not be blank",
    ],
    "comments-only": [
        ": is empty",
    ],
    "control-character": [
        ":5: is not valid YAML: contains a control character",
    ],
    "duplicate-keys": [
        ":6: sync: duplicate key, already in line 1",
        ":8: sync.interval: duplicate key, already in line 7",
        ":9: sync.stale_after: must be at least twice the interval, or every late sync causes a gap",
        ":10: accounts: duplicate key, already in line 3",
        ":11: accounts[0].name: is missing",
    ],
    "empty": [
        ": is empty",
    ],
    "empty-lists": [
        ":1: accounts: must not be empty",
    ],
    "everything": [
        ":2: api.url: http:// would send the key unencrypted; use https://",
        ":3: api.verson: unknown key; did you mean 'version'?",
        ":4: api.timeout: must be between 100ms and 5m",
        ":6: sync.requests_per_hour: must be at most 700",
        f":8: sync.interval: {TOO_OFTEN}",
        ":9: acounts: unknown key; did you mean 'accounts'?",
        ":11: accounts[0].name: is missing",
        f":11: accounts[0]: needs one of {CREDENTIALS}; it has none",
        ":11: accounts[0].personal_keyfile: unknown key; did you mean 'personal_key_file'?",
        ":12: accounts[0].locks: needs one of ids or serial_numbers; it has none",
        f":13: accounts[1]: needs exactly one of {CREDENTIALS}; it has personal_key and access_token_file",
        ":16: accounts[2].name: is also the name of accounts[1]",
        f":17: accounts[2].personal_key: is also the key of accounts[1]; {ONE_USER}",
        f":19: accounts[2].locks.ids[0]: {NOT_A_NUMBER}",
    ],
    "flow-without-closing": [
        (
            ":2:1: is not valid YAML: while parsing a flow sequence (line 1, column 11): "
            "expected ',' or ']', but got '<stream end>'"
        ),
    ],
    "http-to-another-host": [
        ":5: api.url: http:// would send the key unencrypted; use https://",
    ],
    "indentation": [
        (
            ":3:4: is not valid YAML: while parsing a block collection (line 2, column 3): "
            "expected <block end>, but found '<block mapping start>'"
        ),
    ],
    "interval-is-a-list": [
        f":5: sync.interval: {NOT_A_DURATION}",
    ],
    "interval-is-a-number": [
        ":5: sync.interval: is not a duration; write it with its unit, as in 20s or 5m",
    ],
    "interval-is-a-secret": [
        f":5: sync.interval: {NOT_A_DURATION}",
    ],
    "interval-is-a-switch": [
        f":5: sync.interval: {NOT_A_DURATION}",
    ],
    "half-surrogate-pairs": [
        ":1: state_file: must be the name of a file",
        f":2: api: {HALF_PAIR}",
        f":4: accounts[0].name: {HALF_PAIR}",
        ":5: accounts[0].personal_key_file: must be the name of a file",
        f":8: accounts[1].oauth.client_id: {HALF_PAIR}",
        ":9: accounts[1].oauth.client_secret_file: must be the name of a file",
        ":10: accounts[1].oauth.refresh_token_file: must be the name of a file",
    ],
    "id-too-large": [
        ":5: accounts[0].locks.ids[0]: must be at most 9007199254740991",
    ],
    "interval-of-19s": [
        f":5: sync.interval: {TOO_OFTEN}",
    ],
    "interval-of-two-days": [
        ":5: sync.interval: must be at most 24h",
    ],
    "interval-with-a-space": [
        f":5: sync.interval: {NOT_A_DURATION}",
    ],
    "key-file-has-no-name": [
        ":3: accounts[0].personal_key_file: must not be empty",
        ":5: accounts[1].access_token_file: must be the name of a file",
    ],
    "key-file-is-a-number": [
        ":3: accounts[0].personal_key_file: must be the name of a file",
    ],
    "key-in-another-spelling": [
        ":3: accounts[0].PERSONAL-KEY: unknown key; did you mean 'personal_key'?",
    ],
    "key-is-a-mapping": [
        ":3: accounts[0].personal_key: must be text",
    ],
    "key-is-a-number": [
        ":3: accounts[0].personal_key: must be text; put it in quotes",
    ],
    "key-is-a-tag": [
        f":3:19: {NOT_SUPPORTED}",
    ],
    "key-is-a-tag-handle": [
        f":3:19: {NOT_SUPPORTED}",
    ],
    "key-is-a-tagged-number": [
        f":3:19: {NOT_SUPPORTED}",
    ],
    "key-is-an-anchor": [
        f":3:19: {NOT_SUPPORTED}",
    ],
    "key-is-empty": [
        ":3: accounts[0].personal_key: must not be empty",
    ],
    "key-is-the-key": [
        f":2: accounts[0]: needs one of {CREDENTIALS}; it has none",
        f":3: accounts[0]: unknown key; known keys: {ACCOUNT_KEYS}",
    ],
    "key-without-a-space": [
        ":4:5: is not valid YAML: while scanning a simple key (line 3, column 5): could not find expected ':'",
    ],
    "key-without-a-space-in-braces": [
        f":2: accounts[0]: needs one of {CREDENTIALS}; it has none",
        ":2: accounts[0]: unknown key; add a space after the colon",
    ],
    "keys-that-are-no-text": [
        ":4: unknown key; known keys: api, sync, devices, events, state_file, state_url, state_url_file, accounts",
        ":5: yes: unknown key; known keys: api, sync, devices, events, state_file, state_url, state_url_file, accounts",
    ],
    "list-as-key": [
        ":4:1: a list or a mapping cannot be a key",
    ],
    "list-at-top-level": [
        ":1: must be a mapping of keys to values",
    ],
    "locks-both-ways": [
        ":4: accounts[0].locks: needs exactly one of ids or serial_numbers; it has ids and serial_numbers",
    ],
    "locks-empty": [
        ":5: accounts[0].locks.ids: must not be empty",
    ],
    "locks-neither-way": [
        ":4: accounts[0].locks: needs one of ids or serial_numbers; it has none",
    ],
    "locks-of-wrong-types": [
        f":5: accounts[0].locks.ids[0]: {NOT_A_NUMBER}",
        f":5: accounts[0].locks.ids[1]: {NOT_A_NUMBER}",
        ":5: accounts[0].locks.ids[2]: must be at least 0",
        f":5: accounts[0].locks.ids[3]: {NOT_A_NUMBER}",
    ],
    "merge-key": [
        f":4: accounts[0]: unknown key; known keys: {ACCOUNT_KEYS}",
    ],
    "misspelt-key": [
        ":5: sync.intervall: unknown key; did you mean 'interval'?",
    ],
    "misspelt-section": [
        ":4: Sync: unknown key; did you mean 'sync'?",
    ],
    "names-that-yaml-changes": [
        *(f":{line}: accounts[{line // 2 - 1}].name: must be text; put it in quotes" for line in range(2, 22, 2)),
        ":22: accounts[10].name: has no value",
    ],
    "name-has-no-value": [
        ":2: accounts[0].name: has no value",
    ],
    "name-is-a-number": [
        ":2: accounts[0].name: must be text; put it in quotes",
    ],
    "name-is-too-long": [
        ":2: accounts[0].name: must be at most 200 characters long",
    ],
    "nested-too-deeply": [
        ": is nested too deeply",
    ],
    "no-break-spaces": [
        ":4: is not valid YAML: U+00A0 is not a space; replace it with a normal space",
    ],
    "number-that-is-none": [
        ":5:22: the number cannot be read",
    ],
    "numbers-that-are-not-decimal": [
        *(f":5: accounts[0].locks.ids[{index}]: {NOT_A_NUMBER}" for index in range(11)),
        f":7: sync.requests_per_hour: {NOT_A_NUMBER}",
    ],
    "optional-keys-without-a-value": [
        ":1: state_file: has no value",
        ":4: accounts[0].personal_key: has no value",
        ":5: accounts[0].locks: has no value",
    ],
    "requests-out-of-range": [
        ":5: sync.requests_per_hour: must be at least 10",
    ],
    "same-key": [
        f":5: accounts[1].personal_key: is also the key of accounts[0]; {ONE_USER}",
    ],
    "same-key-file": [
        f":5: accounts[1].personal_key_file: is also the key of accounts[0]; {ONE_USER}",
    ],
    "same-name": [
        ":4: accounts[1].name: is also the name of accounts[0]",
    ],
    "second-document": [
        (
            ":4:1: is not valid YAML: expected a single document in the stream (line 1, column 1): "
            "but found another document"
        ),
    ],
    "devices-interval-is-a-number": [
        ":5: devices.interval: is not a duration; write it with its unit, as in 20s or 5m",
        ":6: devices.intervall: unknown key; did you mean 'interval'?",
    ],
    "devices-interval-of-two-days": [
        ":5: devices.interval: must be between 5m and 24h",
    ],
    "devices-interval-too-short": [
        ":5: devices.interval: must be between 5m and 24h",
    ],
    "events-enabled-is-a-number": [
        ":5: events.enabled: must be true or false",
    ],
    "events-invalid": [
        ":5: events.enabled: must be true or false",
        ":6: events.interval: must be between 20s and 24h",
    ],
    "events-without-requests": [
        (
            ":5: sync.requests_per_hour: leaves no requests for events; raise it or sync.interval, "
            "or set events.enabled to false"
        ),
    ],
    "expires-invalid": [
        f":4: accounts[0].expires: {NOT_A_DATE}",
        f":7: accounts[1].expires: {NOT_A_DATE}",
        f":10: accounts[2].expires: {NOT_A_DATE}",
    ],
    "expires-without-personal-key": [
        ":4: accounts[0].expires: is for personal keys; other credentials report their expiry themselves",
    ],
    "section-without-a-space": [
        ":1: sync: must be a mapping of keys to values; write a space after each colon",
    ],
    "sections-are-text": [
        ":1: api: must be a mapping of keys to values",
        ":2: sync: must be a mapping of keys to values",
    ],
    "sections-have-no-value": [
        ":1: api: has no value",
        ":2: sync: has no value",
    ],
    "stale-after-too-short": [
        ":5: sync.stale_after: must be at least twice the interval, or every late sync causes a gap",
    ],
    "tab": [
        (
            ":5:1: is not valid YAML: while scanning for the next token: "
            r"found character '\t' that cannot start any token"
        ),
    ],
    "text-at-top-level": [
        ":1: must be a mapping of keys to values",
    ],
    "text-for-a-list": [
        ":5: accounts[0].locks.serial_numbers: must be a list",
    ],
    "timeout-out-of-range": [
        ":5: api.timeout: must be between 100ms and 5m",
    ],
    "unclosed-quote": [
        (":6:1: is not valid YAML: while scanning a quoted scalar (line 3, column 19): found unexpected end of stream"),
    ],
    "unknown-key": [
        f":4: accounts[0].colour: unknown key; known keys: {ACCOUNT_KEYS}",
    ],
    "url-of-another-scheme": [
        ":5: api.url: is not a URL of the form https://host",
    ],
    "url-with-a-path": [
        ":5: api.url: must have only a scheme, a host and a port",
    ],
    "url-with-a-query": [
        ":5: api.url: must have only a scheme, a host and a port",
    ],
    "url-with-a-secret-for-a-host": [
        ":5: api.url: http:// would send the key unencrypted; use https://",
    ],
    "url-with-a-secret-for-a-port": [
        ":5: api.url: is not a URL of the form https://host",
    ],
    "url-with-a-space": [
        ":5: api.url: is not a URL of the form https://host",
    ],
    "url-with-user-info": [
        ":5: api.url: must have only a scheme, a host and a port",
    ],
    "url-without-a-host": [
        ":5: api.url: is not a URL of the form https://host",
    ],
    "version-is-a-number": [
        ":5: api.version: must be text; put it in quotes",
    ],
    "version-is-unknown": [
        ":5: api.version: must look like v37 or v1.36",
    ],
    "version-of-other-digits": [
        ":5: api.version: must look like v37 or v1.36",
    ],
}


@pytest.mark.parametrize("name", BAD)
def test_invalid_file_is_reported_with_all_lines(name: str) -> None:
    path = TESTDATA / "bad" / f"{name}.yml"
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert caught.value.problems == [f"{path}{line}" for line in BAD[name]]
    assert str(caught.value).splitlines() == caught.value.problems


def test_every_invalid_file_is_in_the_table() -> None:
    assert {path.stem for path in (TESTDATA / "bad").iterdir()} == set(BAD)


def test_no_message_repeats_a_secret_of_the_file() -> None:
    with_secret = [path for path in (TESTDATA / "bad").iterdir() if SECRET in path.read_text("utf-8")]
    assert len(with_secret) > len(BAD) / 2
    for path in with_secret:
        with pytest.raises(ConfigurationError) as caught:
            load(path, check_secrets=True)
        assert SECRET.lower() not in str(caught.value).lower()


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_valid_file_is_loaded(path: Path) -> None:
    written = yaml.safe_load(path.read_text("utf-8-sig"))
    assert [account.name for account in load(path).accounts] == [account["name"] for account in written["accounts"]]


def test_example_with_keys_is_loaded(example: Path) -> None:
    written = yaml.safe_load(example.read_text("utf-8"))
    assert [account.name for account in load(example).accounts] == [account["name"] for account in written["accounts"]]


def test_environment_does_not_change_a_file() -> None:
    settings = load(TESTDATA / "good" / "minimal.yml", {"TEDEE_SYNC_INTERVAL": "1h", "TEDEE_PERSONAL_KEY": "other"})
    assert settings.sync.interval == 20
    assert [account.name for account in settings.accounts] == ["home"]


def test_missing_settings_have_the_documented_defaults() -> None:
    settings = load(TESTDATA / "good" / "minimal.yml")
    assert settings.api == Api(url="https://api.tedee.com", version="v37", timeout=10)
    assert settings.devices == Devices(interval=600.0)
    assert settings.events == Events(enabled=False, interval=60.0)
    assert settings.accounts[0].expires is None
    assert msgspec.structs.asdict(settings.sync) == {"interval": 20, "stale_after": 300, "requests_per_hour": 350}
    assert settings.accounts[0].locks is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-11-30", 1827532800.0),
        ("'2027-11-30'", 1827532800.0),
        ("2027-11-30T12:00:00", 1827576000.0),
        ("2027-11-30T12:00:00Z", 1827576000.0),
        ("2027-11-30 12:00:00+02:00", 1827568800.0),
    ],
)
def test_expiry_is_a_date_in_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, expected: float) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    path = tmp_path / "tedee-exporter.yml"
    path.write_text(f"accounts: [{{name: home, personal_key: {SECRET}, expires: {text}}}]")
    assert load(path).accounts[0].credential == PersonalKey(Secret(SECRET), expected)


def test_devices_and_events_can_be_configured(tmp_path: Path) -> None:
    path = tmp_path / "tedee-exporter.yml"
    path.write_text(
        "devices: {interval: 5m}\nevents: {enabled: true, interval: 2m}\n"
        f"accounts: [{{name: home, personal_key: {SECRET}}}]"
    )
    settings = load(path)
    assert settings.devices == Devices(300.0)
    assert settings.events == Events(True, 120.0)


def test_events_may_be_enabled_if_syncs_leave_requests(tmp_path: Path) -> None:
    path = tmp_path / "tedee-exporter.yml"
    path.write_text(
        "events: {enabled: true}\nsync: {requests_per_hour: 200, interval: 30s}\n"
        f"accounts: [{{name: home, personal_key: {SECRET}}}]"
    )
    assert load(path).events.enabled


def test_long_interval_extends_the_default_stale_after() -> None:
    sync = load(TESTDATA / "good" / "slow.yml").sync
    assert (sync.interval, sync.stale_after) == (600, 1800)


def test_duration_can_have_several_units() -> None:
    assert load(TESTDATA / "good" / "json.yml").sync.interval == 5400


def test_key_that_looks_like_a_date_is_used_as_written() -> None:
    account = load(TESTDATA / "good" / "key-that-looks-like-a-date.yml").accounts[0]
    assert account.credential == PersonalKey(Secret("2026-11-23"))


@pytest.mark.parametrize("name", ["0123", "1:30", "1_234", "0x1F", "y", "n", "1e3", "2026-11-23", "12:30", "0644"])
def test_name_is_used_as_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / "tedee.yml"
    path.write_text(f"accounts:\n  - name: {name}\n    personal_key: {SECRET}\n")
    assert [account.name for account in load(path).accounts] == [name]


def test_locks_are_selected_by_id_or_serial_number(example: Path) -> None:
    by_id = load(TESTDATA / "good" / "selected-locks.yml").accounts[0].locks
    by_serial_number = load(example).accounts[1].locks
    assert by_id == LockSelection(ids=(1, 22))
    assert by_serial_number == LockSelection(serial_numbers=("12345678-123456", "12345678-654321"))


def test_settings_show_no_secret() -> None:
    settings = load(TESTDATA / "good" / "minimal.yml")
    assert SECRET not in f"{settings!r} {settings} {msgspec.structs.asdict(settings)}"
    assert settings.accounts[0].personal_key is not None
    assert settings.accounts[0].personal_key.get_secret_value() == SECRET


def known_keys(model: type[Struct], above: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(model):
        yield f"{above}{field.name}"
        for below in models_in(field.type):
            yield from known_keys(below, f"{above}{field.name}.")


def models_in(annotation: object) -> Iterator[type[Struct]]:
    if isinstance(annotation, type) and issubclass(annotation, Struct):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def used_keys(value: object, above: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield f"{above}{key}"
            yield from used_keys(below, f"{above}{key}.")
    elif isinstance(value, list):
        for item in value:
            yield from used_keys(item, above)


def test_example_has_every_key() -> None:
    known = set(known_keys(Settings))
    assert known >= {"api.url", "sync.interval", "accounts.personal_key", "accounts.locks.ids"}
    # They cannot be combined with the state file.
    used = {*used_keys(yaml.safe_load(EXAMPLE.read_text("utf-8"))), "state_url", "state_url_file"}
    assert used == known
    assert all(f"# {key}: " in EXAMPLE.read_text("utf-8") for key in ("state_url", "state_url_file"))


def test_example_has_the_defaults(example: Path) -> None:
    settings = load(example)
    assert settings.api == Api()
    assert settings.sync == Sync()


# Files that cannot be in testdata


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(path, check_secrets=True)
    return caught.value.problems


def test_missing_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "tedee.yml"
    assert problems(path) == [f"{path}: cannot be read: No such file or directory"]


def test_folder_instead_of_a_file_is_reported(tmp_path: Path) -> None:
    assert problems(tmp_path) == [f"{tmp_path}: cannot be read: Is a directory"]


def test_file_without_read_permission_is_reported(tmp_path: Path, drop_privileges: Callable[[], None]) -> None:
    path = tmp_path / "tedee.yml"
    path.write_text("accounts: []")
    path.chmod(0)
    drop_privileges()
    assert problems(path) == [f"{safe_path(path)}: cannot be read: Permission denied"]


@pytest.mark.parametrize(
    "content",
    [f"accounts: [{{name: b\u00fcro, personal_key: {SECRET}}}]".encode(coding) for coding in ("latin-1", "utf-16")],
    ids=["latin-1", "utf-16"],
)
def test_file_that_is_not_utf_8_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tedee.yml"
    path.write_bytes(content)
    assert problems(path) == [f"{path}:1: is not UTF-8 text; save the file with this encoding"]


# Invalid secrets and state files


@pytest.mark.parametrize("key", ["personal_key", "access_token"])
def test_inline_placeholder_is_refused_at_start(tmp_path: Path, key: str) -> None:
    path = tmp_path / "tedee.yml"
    path.write_text(f"accounts:\n  - name: home\n    {key}: replace-with-the-key\n")
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert caught.value.problems == [f"{path}:3: accounts[0].{key}: the key is a placeholder; write the key instead"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (":memory:", "must be the name of a file; SQLite's :memory: and file: URIs are not supported"),
        ("file:state.db?mode=memory", "must be the name of a file; SQLite's :memory: and file: URIs are not supported"),
        ("sub", "is a folder; name a file in it, such as state.db"),
        ("new/", "is a folder; name a file in it, such as state.db"),
        ("/dev/null", "is not a regular file"),
        ("~/state.db", f"{BEGINS_WITH_TILDE}"),
        ("", "must not be empty"),
        ("tedee.yml/state.db", "is below {folder}/tedee.yml, which is not a folder"),
        ("tedee.yml/a/b/state.db", "is below {folder}/tedee.yml, which is not a folder"),
    ],
)
def test_invalid_state_file_path_is_refused(tmp_path: Path, value: str, message: str) -> None:
    (tmp_path / "sub").mkdir()
    path = tmp_path / "tedee.yml"
    path.write_text(f"accounts: [{{name: home, personal_key: k}}]\nstate_file: '{value}'\n")
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    assert caught.value.problems == [f"{path}:2: state_file: {message.format(folder=tmp_path)}"]


@pytest.mark.parametrize("value", ["state.db", "new/folder/state.db", "./~state.db", "sub/state.db", "tedee.yml"])
def test_state_file_that_can_be_created_is_accepted(tmp_path: Path, value: str) -> None:
    (tmp_path / "sub").mkdir()
    path = tmp_path / "tedee.yml"
    path.write_text(f"accounts: [{{name: home, personal_key: k}}]\nstate_file: '{value}'\n")
    assert load(path).state_file == tmp_path / value


@pytest.mark.parametrize(
    "account",
    [
        "personal_key_file: ~/key",
        "access_token_file: ~root/key",
        "oauth: {client_id: c, refresh_token_file: ~/token}",
        "oauth: {client_id: c, refresh_token_file: token, client_secret_file: ~/secret}",
    ],
)
def test_tilde_in_a_file_name_is_refused(tmp_path: Path, account: str) -> None:
    path = tmp_path / "tedee.yml"
    path.write_text(f"accounts:\n  - name: home\n    {account}\n")
    with pytest.raises(ConfigurationError, match=f": {BEGINS_WITH_TILDE}$"):
        load(path)


def test_same_key_in_two_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home.key").write_text(SECRET)
    (tmp_path / "copy.key").write_text(f"{SECRET}\n")
    path = tmp_path / "tedee.yml"
    path.write_text(
        f"""\
accounts:
  - name: home
    personal_key_file: {tmp_path}/home.key
  - name: office
    personal_key_file: {tmp_path}/copy.key
  - name: garage
    personal_key: {SECRET}
"""
    )
    same = f"is also the key of accounts[0]; {ONE_USER}"
    assert problems(path) == [
        f"{path}:5: accounts[1].personal_key_file: {same}",
        f"{path}:7: accounts[2].personal_key: {same}",
    ]
    # A running exporter detects this when it reads the files for a call. Then one account fails instead of all.
    assert len(load(path).accounts) == 3


def test_missing_secret_files_do_not_prevent_the_start() -> None:
    accounts = load(TESTDATA / "good" / "two-accounts.yml").accounts
    assert [account.credential for account in accounts] == [
        PersonalKey(Path("/run/secrets/home")),
        AccessToken(Path("/run/secrets/office")),
    ]


def test_relative_path_starts_at_the_configuration_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = tmp_path / "etc" / "tedee-exporter.yml"
    config.write_text(
        "accounts: [{name: home, personal_key_file: keys/home}, {name: two, personal_key_file: /keys/two}]"
    )
    files = [account.personal_key_file for account in load(config).accounts]
    assert files == [tmp_path / "etc" / "keys" / "home", Path("/keys/two")]


@pytest.mark.parametrize(("share", "stale_after", "good"), [(24, "5m", True), (23, "5m", False), (10, "12m", True)])
def test_hourly_requests_must_suffice_for_stale_after(tmp_path: Path, share: int, stale_after: str, good: bool) -> None:
    config = tmp_path / "tedee-exporter.yml"
    config.write_text(
        f"accounts: [{{name: home, personal_key: k}}]\nsync: {{stale_after: {stale_after}, requests_per_hour: {share}}}"
    )
    if good:
        assert load(config).sync.requests_per_hour == share
    else:
        with pytest.raises(ConfigurationError, match=r":2: sync\.requests_per_hour: is too low to keep data"):
            load(config)


def test_emoji_can_be_escaped_as_in_json(tmp_path: Path) -> None:
    path = tmp_path / "tedee.yml"
    path.write_text(json.dumps({"accounts": [{"name": "home 🔑", "personal_key": SECRET}]}))
    assert "\\ud83d\\udd11" in path.read_text()
    assert [account.name for account in load(path).accounts] == ["home 🔑"]
