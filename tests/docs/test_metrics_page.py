"""docs/metrics.md: the generated table, the example and the scrape configuration."""

import re
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from exporter.metrics.catalogue import CATALOGUE, markdown

from .checks import check_prometheus_configuration
from .pages import blocks, page, section

TEXT = page("metrics.md")


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


def test_scrape_configuration_is_valid(tmp_path: Path) -> None:
    (text,) = blocks(section(TEXT, "## Scrape configuration"), "yaml")
    assert yaml.safe_load(text)["scrape_configs"][0]["static_configs"][0]["targets"] == ["localhost:10333"]
    check_prometheus_configuration(text, tmp_path)


def test_scrape_configuration_with_tls_is_valid(tmp_path: Path) -> None:
    (text,) = blocks(section(TEXT, "## Scrape configuration"), "yaml")
    with_tls = re.sub(r"(?m)^    # (?=scheme|tls_config|basic_auth)", "    ", text)
    assert "basic_auth" in yaml.safe_load(with_tls)["scrape_configs"][0]
    check_prometheus_configuration(with_tls, tmp_path)
