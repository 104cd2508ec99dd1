"""Lost if these fail: alerts that somebody who is woken by them can trust, and knows what to do about."""

import re
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.metrics.catalogue import CATALOGUE
from tests.alerts.rules import ALERTMANAGER, ALL_ALERTS, NIGHT, RULES, UNIT_TESTS, load, rules
from tests.conftest import require_program
from tests.program import ROOT

RUNBOOKS = ROOT / "docs" / "runbooks.md"
BASE = "https://github.com/tedee-exporter/tedee-exporter/blob/main/docs/runbooks.md"
"""Where the runbooks can be read. It stands in every rule and every unit test: replace it everywhere with `sed`."""


def ran(program: str, *arguments: str | Path) -> str:
    """What the program says; it has to be content."""
    result = subprocess.run([require_program(program), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# Prometheus


@pytest.mark.parametrize("path", [RULES, NIGHT], ids=lambda path: path.name)
def test_promtool_finds_nothing_wrong_with_the_rules(path: Path) -> None:
    assert f"{len(rules(path))} rules found" in ran("promtool", "check", "rules", "--lint=all", "--lint-fatal", path)


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_promtools_unit_tests_pass(path: Path) -> None:
    assert "SUCCESS" in ran("promtool", "test", "rules", path)


def cases(alert: str) -> list[list[bool]]:
    """By unit test: whether the alert fires, at each moment that is looked at, in order."""
    found = []
    for path in UNIT_TESTS:
        for test in load(path)["tests"]:
            looks = [each for each in test.get("alert_rule_test", []) if each["alertname"] == alert]
            if looks:
                looks.sort(key=lambda each: seconds(each["eval_time"]))
                found.append([bool(each.get("exp_alerts")) for each in looks])
    return found


def seconds(duration: str) -> float:
    """The seconds of a duration as Prometheus writes it."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration))


@pytest.mark.parametrize("alert", ALL_ALERTS)
def test_every_alert_is_seen_not_to_fire_to_begin_and_to_end(alert: str) -> None:
    tests = cases(alert)
    assert any(not any(fires) for fires in tests), "no test in which it does not fire"
    assert any((False, True) in pairwise(fires) for fires in tests), "no test in which it begins"
    assert any((True, False) in pairwise(fires) for fires in tests), "no test in which it ends"


def test_the_rules_ask_for_metrics_that_exist() -> None:
    exported = {metric.name for metric in CATALOGUE}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        without_texts = re.sub(r'"[^"]*"', "", str(rule["expr"]))
        asked = set(re.findall(r"(?<![\w:])(?:(?:lock|tedee)_\w+|[a-z]+:[\w:]+)", without_texts))
        assert asked - {"lock_id", "lock_name"} <= exported | recorded, rule


def test_every_metric_by_which_a_lock_is_seen_exists() -> None:
    (rule,) = [rule for rule in rules(RULES) if rule.get("record") == "lock:lock_seen:timestamp"]
    names = re.search(r'=~"lock_\((.*?)\)"', rule["expr"])
    assert names
    assert {f"lock_{name}" for name in names[1].split("|")} <= {metric.name for metric in CATALOGUE}


# What people read


@pytest.mark.parametrize("alert", ALL_ALERTS)
def test_every_alert_says_how_urgent_it_is_what_it_is_about_and_where_to_read_on(alert: str) -> None:
    rule = ALL_ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    names_the_lock = "$labels.lock_name" in rule["annotations"]["description"]
    assert names_the_lock == bool(re.match(r"Tedee(Lock|Door|Battery|Firmware)", alert))
    assert re.search(r"\$labels\.(account|instance)", rule["annotations"]["description"])
    assert rule["annotations"]["runbook_url"] == f"{BASE}#{alert.lower()}"


def sections() -> dict[str, str]:
    """The runbooks by alert."""
    found = re.split(r"^## (.+)$", RUNBOOKS.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {title: text for title, text in zip(found[::2], found[1::2], strict=True) if title.startswith("Tedee")}


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert set(sections()) == set(ALL_ALERTS)


def test_every_link_within_the_runbooks_leads_somewhere() -> None:
    text = RUNBOOKS.read_text("utf-8")
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) == {alert.lower() for alert in ALL_ALERTS}
    files = set(re.findall(r"\]\((\.\.[^)#]+)", text))
    assert files
    assert [link for link in files if not (RUNBOOKS.parent / link).exists()] == []


@pytest.mark.parametrize("alert", ALL_ALERTS)
def test_every_runbook_says_what_it_means_how_to_check_and_what_to_do(alert: str) -> None:
    parts = re.split(r"^### (.+)$", sections()[alert], flags=re.MULTILINE)
    assert parts[1::2] == ["What it means", "How to check", "What to do"]
    assert all(40 < len(text.strip()) < 1200 for text in parts[2::2])


# Alertmanager


def test_alertmanager_accepts_its_example() -> None:
    ran("amtool", "check-config", ALERTMANAGER)


def test_alertmanager_accepts_its_example_with_all_that_can_be_switched_on(tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(ALERTMANAGER.read_text("utf-8").replace("#: ", ""), "utf-8")
    ran("amtool", "check-config", path)
    assert {"email_configs", "pushover_configs", "webhook_configs", "name"} == set(load(path)["receivers"][0])
    assert ran("amtool", "config", "routes", "test", f"--config.file={path}", "alertname=TedeeLockUnlockedAtNight") == (
        "night-porter\n"
    )


@pytest.mark.parametrize(
    ("severity", "receiver"), [("critical", "night-porter"), ("warning", "office"), ("info", "caretaker")]
)
def test_the_urgent_goes_to_who_is_awake(severity: str, receiver: str) -> None:
    labels = (f"severity={severity}", "alertname=TedeeLockJammed")
    assert ran("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels) == f"{receiver}\n"


def test_the_urgent_does_not_wait_for_what_was_told_before_it() -> None:
    (tedee,) = load(ALERTMANAGER)["route"]["routes"]
    (urgent,) = [route for route in tedee["routes"] if route["matchers"] == ['severity = "critical"']]
    assert seconds(urgent["group_wait"]) <= 10
    assert seconds(urgent["group_interval"]) <= 60


def matched(rule: dict[str, Any], side: str) -> set[str]:
    """The alerts on one side of an inhibition."""
    (matcher,) = rule[f"{side}_matchers"]
    pattern = re.fullmatch(r'alertname =~? "(.+)"', matcher)
    assert pattern
    return {alert for alert in ALL_ALERTS if re.fullmatch(pattern[1], alert)}


def test_what_hushes_and_what_is_hushed_exists_and_is_of_the_same_lock_or_account() -> None:
    for rule in load(ALERTMANAGER)["inhibit_rules"]:
        assert matched(rule, "source")
        assert matched(rule, "target")
        # Two alerts that both lack a label are equal in it: what is equal has to be there.
        alerts = matched(rule, "source") | matched(rule, "target")
        of_locks = all(re.match("Tedee(Lock|Door|Battery)", alert) for alert in alerts)
        assert rule["equal"] == (["account", "lock_id"] if of_locks else ["account"])


def test_nothing_urgent_is_hushed_by_what_is_not() -> None:
    for rule in load(ALERTMANAGER)["inhibit_rules"]:
        source, target = (
            {ALL_ALERTS[alert]["labels"]["severity"] for alert in matched(rule, side)} for side in ("source", "target")
        )
        assert source == {"critical"} or "critical" not in target


# The Prometheus operator


def test_the_operator_gets_the_same_groups() -> None:
    (command,) = re.findall(
        r"^(\{ printf .*?)\| kubectl", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    shown = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    resource = yaml.safe_load(shown.stdout)
    assert (resource["apiVersion"], resource["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert resource["metadata"] == {"name": "tedee", "labels": {"release": "kube-prometheus-stack"}}
    assert resource["spec"] == load(RULES)
