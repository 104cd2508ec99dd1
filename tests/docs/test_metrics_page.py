"""docs/metrics.md: the generated table, the example and the scrape configuration."""

import re
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.metrics.catalogue import CATALOGUE, LOCK_DOOR_OPEN, LOCK_JAMMED, LOCK_LOCKED, LockMetric, markdown
from exporter.tedee.models import Code, DoorState, LockState, StateChangeResult
from testing.factories import lock_with_state

from .checks import check_prometheus_configuration
from .pages import blocks, page, section

TEXT = page("metrics.md")
DERIVED: list[tuple[LockMetric, str, str, type[Code]]] = [
    (LOCK_LOCKED, "lock_state", "state", LockState),
    (LOCK_DOOR_OPEN, "lock_door_state", "door_state", DoorState),
    (LOCK_JAMMED, "lock_state_change_result", "state_change_result", StateChangeResult),
]
"""Metrics that are derived from a code: the metric of the code, its field and its codes."""


def test_table_matches_the_catalogue() -> None:
    table = re.search(r"<!-- made by: .*? -->\n(.*?)<!-- metrics: end -->", TEXT, re.DOTALL)
    assert table
    assert table[1] == markdown()


def test_example_has_names_and_labels_of_the_catalogue() -> None:
    (example,) = blocks(section(TEXT, "## Example"), "console")
    command, _, output = example.partition("\n")
    assert command.startswith("$ curl ")
    samples = [sample for family in text_string_to_metric_families(output) for sample in family.samples]
    known = {metric.name: set(metric.labels) for metric in CATALOGUE}
    assert samples
    assert all(set(sample.labels) == known[sample.name] for sample in samples)


def test_codes_have_the_values_of_the_table() -> None:
    lines = section(TEXT, "## Codes as 0 and 1").splitlines()
    rows = [re.findall(r"(?<=\| ).*?(?= \|)", line) for line in lines if line.startswith("| `")]
    assert [row[:2] for row in rows] == [[f"`{metric.name}`", f"`{source}`"] for metric, source, _, _ in DERIVED]
    for (metric, _, field, codes), (_, _, *cells) in zip(DERIVED, rows, strict=True):
        values = {code: metric.value(lock_with_state(**{field: code.value})) for code in codes}
        texts = [
            ", ".join(f"{code.value} {code.text}" for code, value in values.items() if value is each)
            for each in (True, False, None)
        ]
        assert cells == [*texts[:2], ", ".join(filter(None, [texts[2], "other codes"]))]


def test_scrape_configuration_is_valid(tmp_path: Path) -> None:
    (text,) = blocks(section(TEXT, "## Scrape configuration"), "yaml")
    assert yaml.safe_load(text)["scrape_configs"][0]["static_configs"][0]["targets"] == ["localhost:10333"]
    check_prometheus_configuration(text, tmp_path)


def test_scrape_configuration_with_tls_is_valid(tmp_path: Path) -> None:
    (text,) = blocks(section(TEXT, "## Scrape configuration"), "yaml")
    with_tls = re.sub(r"(?m)^    # (?=scheme|tls_config|basic_auth)", "    ", text)
    assert "basic_auth" in yaml.safe_load(with_tls)["scrape_configs"][0]
    check_prometheus_configuration(with_tls, tmp_path)
