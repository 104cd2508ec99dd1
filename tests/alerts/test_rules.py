"""Tests of the rules, their unit tests, the runbooks and the examples for Alertmanager and the Prometheus operator."""

import re
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts.__main__ import PAGE, page
from exporter.metrics.catalogue import CATALOGUE, LOCK_LOCKED
from exporter.presentation import CRITICAL_BATTERY, LOW_ACCESSORY_BATTERY, LOW_BATTERY
from testing.factories import lock_with_state
from testing.program import ROOT
from tests.alerts.rules import ALERTMANAGER, ALL_ALERTS, NIGHT, RULES, UNIT_TESTS, load, rules
from tests.conftest import require_program

RUNBOOKS = ROOT / "docs" / "runbooks.md"
BASE = "https://github.com/tedee-exporter/tedee-exporter/blob/main/docs/runbooks.md"
"""URL of the runbooks. Every rule and every unit test contains it: replace it everywhere with `sed`."""


def run(program: str, *arguments: str | Path) -> str:
    """Run a program, which must succeed, and return its output."""
    result = subprocess.run([require_program(program), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


# Prometheus


@pytest.mark.parametrize("path", [RULES, NIGHT], ids=lambda path: path.name)
def test_rules_pass_promtool_lint(path: Path) -> None:
    assert f"{len(rules(path))} rules found" in run("promtool", "check", "rules", "--lint=all", "--lint-fatal", path)


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_unit_tests_pass(path: Path) -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", path)


def cases(alert: str) -> list[list[bool]]:
    """Return for each unit test of an alert whether it fires, at each evaluation time in order."""
    found = []
    for path in UNIT_TESTS:
        for test in load(path)["tests"]:
            times = [each for each in test.get("alert_rule_test", []) if each["alertname"] == alert]
            if times:
                times.sort(key=lambda each: seconds(each["eval_time"]))
                found.append([bool(each.get("exp_alerts")) for each in times])
    return found


def seconds(duration: str) -> float:
    """Convert a duration in the notation of Prometheus to seconds."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration))


@pytest.mark.parametrize("alert", ALL_ALERTS)
def test_unit_tests_cover_begin_and_end_of_alert(alert: str) -> None:
    tests = cases(alert)
    assert any(not any(fires) for fires in tests), "no test in which it does not fire"
    assert any((False, True) in pairwise(fires) for fires in tests), "no test in which it begins"
    assert any((True, False) in pairwise(fires) for fires in tests), "no test in which it ends"


def unknown_metrics(expression: str) -> set[str]:
    """Return the metrics of an expression that are neither exported nor recorded."""
    exported = {metric.name for metric in CATALOGUE}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    without_strings = re.sub(r'"[^"]*"', "", expression)
    queried = set(re.findall(r"(?<![\w:])(?:(?:lock|tedee)_\w+|[a-z]+:[\w:]+)", without_strings))
    return queried - {"lock_id", "lock_name"} - exported - recorded


def test_rules_query_existing_metrics() -> None:
    for rule in rules():
        assert unknown_metrics(str(rule["expr"])) == set(), rule


def test_lock_seen_rule_queries_existing_metrics() -> None:
    (rule,) = [rule for rule in rules(RULES) if rule.get("record") == "lock:lock_seen:timestamp"]
    names = re.search(r'=~"lock_\((.*?)\)"', rule["expr"])
    assert names
    assert {f"lock_{name}" for name in names[1].split("|")} <= {metric.name for metric in CATALOGUE}


def test_not_locked_rule_agrees_with_lock_locked(tmp_path: Path) -> None:
    codes = [*range(-1, 260)]
    states = {code: lock_with_state(state=code) for code in codes}
    expected = [code for code, lock in states.items() if LOCK_LOCKED.value(lock) is False]
    assert len(expected) == 7
    labels = '{{account="home", lock_id="{code}", lock_name="Front door"}}'
    test = {
        "interval": "1m",
        "input_series": [{"series": f"lock_state{labels.format(code=code)}", "values": code} for code in codes],
        "promql_expr_test": [
            {
                "expr": "lock:lock_state:not_locked",
                "eval_time": "0m",
                "exp_samples": [
                    {"labels": f"lock:lock_state:not_locked{labels.format(code=code)}", "value": code}
                    for code in expected
                ],
            }
        ],
    }
    path = tmp_path / "states.yml"
    groups = ["tedee-limits", "tedee-held", "tedee-held-devices"]
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "group_eval_order": groups, "tests": [test]}), "utf-8")
    assert "SUCCESS" in run("promtool", "test", "rules", path)


def test_groups_are_within_the_limit_of_grafana_cloud() -> None:
    """Mimir rejects a group with more than 20 rules by default (`ruler_max_rules_per_rule_group`)."""
    assert max(len(group["rules"]) for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"]) <= 20


@pytest.mark.parametrize(
    ("rule", "limit"),
    [
        ("tedee:battery_percent:low", LOW_BATTERY),
        ("tedee:battery_percent:critical", CRITICAL_BATTERY),
        ("tedee:accessory_battery_percent:low", LOW_ACCESSORY_BATTERY),
    ],
)
def test_limits_are_those_of_the_status_page(rule: str, limit: int) -> None:
    (found,) = [each for each in rules(RULES) if each.get("record") == rule]
    assert found["expr"] == str(limit)


# Texts and runbooks


def kind_of_device(alert: str) -> str | None:
    """Return the kind of device that an alert concerns, as in the names of its labels. None if it concerns none."""
    kinds = {
        "Keypad": "keypad",
        "Bridge": "bridge",
        "DoorSensor": "door_sensor",
        "Lock|Door|Battery|Firmware|WrongPins": "lock",
    }
    return next((kind for pattern, kind in kinds.items() if re.match(f"Tedee({pattern})", alert)), None)


@pytest.mark.parametrize("alert", ALL_ALERTS)
def test_alert_has_severity_subject_and_runbook(alert: str) -> None:
    rule = ALL_ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    named = set(re.findall(r"\$labels\.(\w+_name)", rule["annotations"]["description"]))
    assert named == {f"{kind}_name" for kind in [kind_of_device(alert)] if kind}
    assert re.search(r"\$labels\.(account|instance|job)", rule["annotations"]["description"])
    assert rule["annotations"]["runbook_url"] == f"{BASE}#{alert.lower()}"


@pytest.mark.parametrize("alert", ALL_ALERTS)
def test_minutes_in_description_equal_for_duration(alert: str) -> None:
    rule = ALL_ALERTS[alert]
    minutes = re.findall(r"more than (\d+) minute", rule["annotations"]["description"])
    assert [f"{number}m" for number in minutes] in ([], [rule.get("for")])


def sections() -> dict[str, str]:
    """Return the runbook of each alert."""
    found = re.split(r"^### (.+)$", RUNBOOKS.read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {title: text for title, text in zip(found[::2], found[1::2], strict=True) if title.startswith("Tedee")}


def test_every_alert_has_a_runbook() -> None:
    assert set(sections()) == set(ALL_ALERTS)


def test_links_in_runbooks_are_valid() -> None:
    text = RUNBOOKS.read_text("utf-8")
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) == {alert.lower() for alert in ALL_ALERTS}
    files = set(re.findall(r"\]\((\.\.[^)#]+)", text))
    assert files
    assert [link for link in files if not (RUNBOOKS.parent / link).exists()] == []


@pytest.mark.parametrize("alert", ALL_ALERTS)
def test_runbook_has_all_sections(alert: str) -> None:
    parts = re.split(r"^#### (.+)$", sections()[alert], flags=re.MULTILINE)
    assert parts[1::2] == ["What it means", "How to check", "What to do"]
    assert all(40 < len(text.strip()) < 1200 for text in parts[2::2])


@pytest.mark.parametrize("alert", ALL_ALERTS)
def test_runbook_has_query_and_command(alert: str) -> None:
    how_to_check = sections()[alert].partition("#### How to check")[2].partition("#### ")[0]
    assert blocks(how_to_check, "promql")
    assert blocks(how_to_check, "sh")


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", [RUNBOOKS, PAGE], ids=lambda path: path.name)
def test_queries_in_documents_are_valid(path: Path, tmp_path: Path) -> None:
    queries = blocks(path.read_text("utf-8"), "promql")
    assert [query for query in queries if unknown_metrics(query)] == []
    checked = tmp_path / "rules.yml"
    group = {"name": "queries", "rules": [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]}
    checked.write_text(yaml.safe_dump({"groups": [group]}), "utf-8")
    assert f"{len(queries)} rules found" in run("promtool", "check", "rules", checked)


@pytest.mark.parametrize("path", [RUNBOOKS, PAGE], ids=lambda path: path.name)
def test_commands_in_documents_are_valid(path: Path) -> None:
    commands = "".join(blocks(path.read_text("utf-8"), "sh"))
    subprocess.run(["bash", "-n"], input=commands, text=True, check=True)
    calls = re.findall(r"(?m)(?:^|-- )tedee-exporter (.*)", commands.replace("\\\n", ""))
    flags = {flag for call in calls for flag in re.findall(r"--[\w.]+", call)}
    assert flags <= {"--config.check", "--config.file", "--version"}


def test_example_of_custom_limits_is_valid(tmp_path: Path) -> None:
    (example,) = [block for block in blocks(PAGE.read_text("utf-8"), "yaml") if block.startswith("groups:")]
    path = tmp_path / "rules.yml"
    path.write_text(example, "utf-8")
    assert "2 rules found" in run("promtool", "check", "rules", "--lint=all", "--lint-fatal", path)


def test_table_of_alerts_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python -m alerts"


# Alertmanager


def test_alertmanager_example_is_valid() -> None:
    run("amtool", "check-config", ALERTMANAGER)


def test_alertmanager_example_is_valid_with_all_options(tmp_path: Path) -> None:
    path = tmp_path / "alertmanager.yml"
    path.write_text(ALERTMANAGER.read_text("utf-8").replace("#: ", ""), "utf-8")
    run("amtool", "check-config", path)
    assert {"email_configs", "pushover_configs", "webhook_configs", "name"} == set(load(path)["receivers"][0])
    assert run("amtool", "config", "routes", "test", f"--config.file={path}", "alertname=TedeeLockUnlockedAtNight") == (
        "night-porter\n"
    )


@pytest.mark.parametrize(
    ("severity", "receiver"), [("critical", "night-porter"), ("warning", "office"), ("info", "caretaker")]
)
def test_severity_selects_receiver(severity: str, receiver: str) -> None:
    labels = (f"severity={severity}", "alertname=TedeeLockJammed")
    assert run("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels) == f"{receiver}\n"


def test_critical_alerts_are_not_delayed() -> None:
    (tedee,) = load(ALERTMANAGER)["route"]["routes"]
    (critical,) = [route for route in tedee["routes"] if route["matchers"] == ['severity = "critical"']]
    assert seconds(critical["group_wait"]) <= 10
    assert seconds(critical["group_interval"]) <= 60


def matched(rule: dict[str, Any], side: str) -> set[str]:
    """Return the alerts that match one side of an inhibition rule."""
    (matcher,) = rule[f"{side}_matchers"]
    pattern = re.fullmatch(r'alertname =~? "(.+)"', matcher)
    assert pattern
    return {alert for alert in ALL_ALERTS if re.fullmatch(pattern[1], alert)}


def test_inhibition_matches_existing_alerts_and_labels() -> None:
    for rule in load(ALERTMANAGER)["inhibit_rules"]:
        assert matched(rule, "source")
        assert matched(rule, "target")
        # Two alerts that both lack a label are equal in it, so the labels in `equal` must exist.
        alerts = matched(rule, "source") | matched(rule, "target")
        kinds = {kind_of_device(alert) for alert in alerts}
        device = "lock_id" if kinds == {"lock"} else "bridge_id" if kinds == {"lock", "bridge"} else None
        assert rule["equal"] == ["account", *filter(None, [device])]


def test_alerts_have_the_bridge_that_inhibition_compares() -> None:
    for rule in load(ALERTMANAGER)["inhibit_rules"]:
        if "bridge_id" in rule["equal"]:
            alerts = matched(rule, "source") | matched(rule, "target")
            assert alerts == {"TedeeBridgeOffline", "TedeeLockOffline"}
            assert "group_left (bridge_id)" in ALL_ALERTS["TedeeLockOffline"]["expr"]


def test_critical_alert_is_not_inhibited_by_warning() -> None:
    for rule in load(ALERTMANAGER)["inhibit_rules"]:
        source, target = (
            {ALL_ALERTS[alert]["labels"]["severity"] for alert in matched(rule, side)} for side in ("source", "target")
        )
        assert source == {"critical"} or "critical" not in target


# The Prometheus operator


def test_prometheus_rule_has_the_same_groups() -> None:
    guide = (ROOT / "docs" / "how-to" / "prometheus-operator.md").read_text("utf-8")
    (command,) = re.findall(r"^(\{ printf .*?)\| kubectl", guide, re.DOTALL | re.MULTILINE)
    shown = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    resource = yaml.safe_load(shown.stdout)
    assert (resource["apiVersion"], resource["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert resource["metadata"] == {"name": "tedee", "labels": {"release": "kube-prometheus-stack"}}
    assert resource["spec"] == load(RULES)
