"""docs/configuration.md: every variable, flag and key, and examples that are valid."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from exporter import config
from exporter.cli import _create_parser
from exporter.config.model import parse_duration
from exporter.config.settings import Account, Api, Devices, Events, LockSelection, OAuth, Settings, Sync

from .pages import DOCUMENTS, blocks, name_of, page, section

TEXT = page("configuration.md")
FLAGS = {flag for action in _create_parser()._actions for flag in action.option_strings if flag.startswith("--")}


def test_page_lists_exactly_the_flags() -> None:
    table = [line.split("|")[1] for line in section(TEXT, "## Flags").splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(--[a-z.-]+)", " ".join(table))) == FLAGS
    assert set(re.findall(r"`(--[a-z.-]+)", TEXT)) == FLAGS


def test_page_lists_exactly_the_variables() -> None:
    listed = re.findall(r"(?m)^\| `(\w+)`", section(TEXT, "## Environment variables"))
    assert sorted(listed) == sorted(config.ENVIRONMENT)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_documents_name_only_known_flags(document: Path) -> None:
    text = document.read_text("utf-8")
    named = set(re.findall(r"(?<![\w-])--(?:(?:config|web|sync|log)\.[a-z.-]+|shard|demo)\b", text))
    assert {flag.rstrip(".") for flag in named} <= FLAGS


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_documents_name_only_known_variables(document: Path) -> None:
    assert set(re.findall(r"\bTEDEE_[A-Z_]+\b", document.read_text("utf-8"))) <= set(config.ENVIRONMENT)


MODELS: dict[str, type[Struct]] = {
    "Top level": Settings,
    "`<api>`": Api,
    "`<sync>`": Sync,
    "`<devices>`": Devices,
    "`<events>`": Events,
    "`<account>`": Account,
    "`<locks>`": LockSelection,
    "`<oauth>`": OAuth,
}


@pytest.mark.parametrize("heading", MODELS)
def test_schema_has_exactly_the_keys(heading: str) -> None:
    (schema,) = blocks(section(TEXT, f"### {heading}"), "yml")
    keys = re.findall(r"(?m)^(?:\[ )?(\w+):", schema)
    assert sorted(keys) == sorted(MODELS[heading].__struct_fields__)


def test_defaults_of_schema_are_those_of_the_code() -> None:
    durations = [
        ("api", "timeout", "10s", Api().timeout),
        ("sync", "interval", "20s", Sync().interval),
        ("devices", "interval", "10m", Devices().interval),
        ("events", "interval", "60s", Events().interval),
    ]
    for heading, key, text, value in durations:
        assert f"[ {key}: <duration> | default = {text} ]" in section(TEXT, f"### `<{heading}>`")
        assert parse_duration(text) == value
    assert f"[ enabled: <bool> | default = {str(Events().enabled).lower()} ]" in section(TEXT, "### `<events>`")
    assert f"default = {Sync().requests_per_hour} ]" in TEXT
    for text in (Api().url, Api().version, *_defaults(OAuth, "token_url", "scope")):
        assert f"default = {text} ]" in TEXT


def _defaults(model: type[Struct], *keys: str) -> list[Any]:
    defaults = {field.name: field.default for field in msgspec.structs.fields(model)}
    return [defaults[key] for key in keys]


def test_minimal_file_is_valid(tmp_path: Path) -> None:
    (text,) = [block for block in blocks(TEXT, "yaml") if block.startswith("accounts:")]
    path = tmp_path / "tedee-exporter.yml"
    path.write_text(text)
    assert [account.name for account in config.load(path).accounts] == ["home", "hotel"]


def test_example_of_errors_is_what_the_check_reports(tmp_path: Path) -> None:
    path = tmp_path / "tedee-exporter.yml"
    path.write_text("sync:\n  interval: 5s\naccounts:\n  - name: home\n    personal_keyfile: home.key\n")
    with pytest.raises(config.ConfigurationError) as raised:
        config.load(path)
    (example, *_) = blocks(section(TEXT, "## Check a configuration"), "console")
    assert str(raised.value).replace(f"{tmp_path}/", "").splitlines() == example.splitlines()[1:]
