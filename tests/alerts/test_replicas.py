"""Tests that the rules work with several replicas that share a database.

The unit tests of one exporter are repeated with three replicas, which serve the same data and end one after the other.
All alerts must fire once, and begin and end as before. `alerts/tests/replicas.yml` has the cases that one exporter does
not have.
"""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.rules import NIGHT, RULES, UNIT_TESTS, load
from tests.alerts.test_rules import seconds
from tests.conftest import require_program

REPLICAS = 3
DOWN = 6
"""Samples for which a replica is down. Then it starts again, and the next one ends."""
TAKEOVER = 2
"""Samples until a replica that takes over knows what only the one knows that makes the calls."""
LONGEST = 1300
"""Seconds of the longest unit test that is repeated. The others take promtool minutes."""

COUNTERS = {"tedee_api_requests_total"}
"""Metrics that count what a replica did itself."""
KNOWN_TO_CALLER = {"tedee_api_version_supported", "tedee_events_permitted"}
"""Metrics that a replica has only if it makes the calls."""
ABSENT, STALE = "_", "stale"


def expanded(notation: str) -> list[str]:
    """Return the samples of a series in the notation of promtool, one by one."""
    samples: list[str] = []
    for token in notation.split():
        match = re.fullmatch(r"(_|stale|[-+]?[\d.]+(?:e\d+)?)(?:([-+][\d.]+)?x(\d+))?", token)
        assert match, token
        value, step, times = match.groups()
        if times is None:
            samples.append(value)
        elif value in (ABSENT, STALE):
            samples += [value] * int(times)
        else:
            samples += [f"{float(value) + number * float(step or 0):.15g}" for number in range(int(times) + 1)]
    return samples


def is_down(replica: int, number: int) -> bool:
    """Return True if a replica is down at a sample."""
    return number >= DOWN and number // DOWN % REPLICAS == replica


def caller(number: int) -> int:
    """Return the replica that makes the calls: the first one that runs."""
    return next(replica for replica in range(REPLICAS) if not is_down(replica, number))


def replicated(metric: str, samples: Sequence[str]) -> list[list[str]]:
    """Return the samples of each replica."""
    found: list[list[str]] = [[] for _ in range(REPLICAS)]
    counts, previous = [0.0] * REPLICAS, 0.0
    for number, sample in enumerate(samples):
        if metric in COUNTERS and sample not in (ABSENT, STALE):
            value = float(sample)
            counts[caller(number)] += value - previous if value >= previous else value
            previous = value
        for replica, of_replica in enumerate(found):
            knows = metric not in KNOWN_TO_CALLER or all(
                caller(each) == replica or samples[each] in (ABSENT, STALE)
                for each in range(max(number - TAKEOVER, 0), number + 1)
            )
            if is_down(replica, number):
                counts[replica] = 0.0
            if is_down(replica, number) or not knows:
                of_replica.append(STALE if of_replica and of_replica[-1] not in (ABSENT, STALE) else ABSENT)
            elif metric in COUNTERS and sample not in (ABSENT, STALE):
                of_replica.append(f"{counts[replica]:.15g}")
            else:
                of_replica.append(sample)
    return found


def with_replicas(test: dict[str, Any]) -> dict[str, Any]:
    """Return a unit test in which three replicas report locks, devices and accounts."""
    series = []
    for each in test["input_series"]:
        metric, _, labels = each["series"].rpartition("}")[0].partition("{")
        if not metric.startswith(("lock_", "tedee_")) or metric.startswith("tedee_exporter_"):
            series.append(each)
            continue
        found = re.search(r'(?:^|,)instance="(.*?)"', labels)
        others = re.sub(r'(?:^|,)instance=".*?"', "", labels).strip(",")
        for replica, samples in enumerate(replicated(metric, expanded(str(each["values"])))):
            instance = f"{found[1] if found else ''}/{replica}"
            name = f'{metric}{{{others},instance="{instance}",pod="exporter-{replica}"}}'
            series.append({"series": name, "values": " ".join(samples)})
    return test | {"input_series": series}


def times(test: dict[str, Any]) -> list[float]:
    """Return the times at which a unit test checks alerts."""
    return [seconds(each["eval_time"]) for each in test.get("alert_rule_test", [])]


def short_tests(path: Path) -> list[dict[str, Any]]:
    """Return the unit tests of a file that are repeated."""
    return [test for test in load(path)["tests"] if times(test) and max(times(test)) <= LONGEST]


OF_ONE_EXPORTER = [path for path in UNIT_TESTS if path.stem != "replicas" and short_tests(path)]


@pytest.mark.parametrize("path", OF_ONE_EXPORTER, ids=lambda path: path.stem)
def test_unit_tests_pass_with_replicas(path: Path, tmp_path: Path) -> None:
    content = load(path)
    content["rule_files"] = [str(RULES), str(NIGHT)]
    content["tests"] = [with_replicas(test) for test in short_tests(path)]
    changed = tmp_path / path.name
    changed.write_text(yaml.safe_dump(content, sort_keys=False, width=10**6), "utf-8")
    result = subprocess.run(
        [require_program("promtool"), "test", "rules", changed], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
