"""Tests that promtool's unit tests detect faults in the rules.

Each rule is changed in many ways, one at a time. Each time a unit test must fail.
"""

import re
import subprocess
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from testing.program import LONG_TEST
from tests.alerts.rules import ALL_ALERTS, NIGHT, RULES, UNIT_TESTS, Rule, load, rules
from tests.conftest import require_program

BY_NAME: dict[str, Rule] = {rule.get("alert") or rule["record"]: rule for rule in rules()}
TIME_ZONE_RULES = {"tedee:utc_offset:hours", "tedee:night:hours"}
"""Tested against the time zone database in `test_night`."""


def major_mutants(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """Yield the rule without a part of it, each with a description of the change."""
    expression = str(rule["expr"])
    yield "never true", rule | {"expr": "vector(0) > 1"}
    yield "always true", rule | {"expr": "vector(1)"}
    for clause in clauses(expression):
        yield f"without `{' '.join(clause.split())}`", rule | {"expr": expression.replace(clause, "", 1)}
    for key in {"for", "keep_firing_for"} & rule.keys():
        yield f"no {key}", {name: value for name, value in rule.items() if name != key}
        yield f"{key} is thrice as long", rule | {key: f"{3 * int(rule[key][:-1])}{rule[key][-1]}"}


def minor_mutants(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """Yield the rule with another number or the opposite comparison, each with a description of the change."""
    expression = str(rule["expr"])
    # Numbers, except in names and durations and the 1 of `topk`.
    for found in re.finditer(r"(?<![\w.:\[\"])\d+(?:\.\d+)?(?![\w.:,])", expression):
        number = float(found[0])
        for other in (1.5 * number + 2 * (number == 0), number / 2 - (number == 0)):
            yield f"{found[0]} is {other:g}", rule | {"expr": replaced(expression, found, f"{other:g}")}
    opposites = {"==": "!=", "!=": "==", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
    for found in re.finditer(r"(?<=\s)(==|!=|<=|>=|<|>)(?=\s)", expression):
        yield f"{found[0]} is {opposites[found[0]]}", rule | {"expr": replaced(expression, found, opposites[found[0]])}


def replaced(expression: str, found: re.Match[str], by: str) -> str:
    return expression[: found.start()] + by + expression[found.end() :]


def clauses(expression: str) -> list[str]:
    """Return each `and`, `or` and `unless` outside of parentheses, with the text up to the next one."""
    level, starts = 0, []
    for found in re.finditer(r"[()]|\b(?:and|or|unless)\b", expression):
        level += {"(": 1, ")": -1}.get(found[0], 0)
        if level == 0 and found[0] != ")":
            starts.append(found.start())
    return [expression[start:end] for start, end in pairwise([*starts, len(expression)])]


def reads(rule: Rule) -> set[str]:
    """Return the names of the recording rules that a rule reads."""
    return {name for name in BY_NAME if re.search(rf"(?<![\w:]){name}(?![\w:])", str(rule["expr"]))}


def with_sources(names: set[str]) -> set[str]:
    """Return the rules and all recording rules that they depend on."""
    while more := {source for name in names for source in reads(BY_NAME[name])} - names:
        names = names | more
    return names


class RuleTester:
    """The rules and unit tests that depend on one rule. Testing the whole file would take a hundred times as long."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._dependent = {other for other in BY_NAME if name in with_sources({other})}
        self._needed = with_sources(self._dependent)
        self._files: list[Path] = []
        for path in UNIT_TESTS:
            content = load(path)
            content["rule_files"] = ["rules.yml"]
            content["tests"] = [test for test in content["tests"] if self._narrow(test)]
            if content["tests"]:
                self._files.append(write(folder / path.name, content))

    def failure(self, rule: Rule) -> str:
        """Return the output of promtool with the given rule, or an empty string if the tests pass."""
        groups = [group for path in (RULES, NIGHT) for group in load(path)["groups"]]
        for group in groups:
            needed = [each for each in group["rules"] if (each.get("alert") or each["record"]) in self._needed]
            group["rules"] = [rule if (each.get("alert") or each["record"]) == self._name else each for each in needed]
        write(self._folder / "rules.yml", {"groups": [group for group in groups if group["rules"]]})
        result = subprocess.run(
            [require_program("promtool"), "test", "rules", *self._files], capture_output=True, text=True, check=False
        )
        output = result.stdout + result.stderr
        assert "could not parse expression" not in output, output
        return "" if result.returncode == 0 else output

    def _narrow(self, test: dict[str, Any]) -> bool:
        """Remove the parts of a test that do not depend on the rule. Returns True if any are left."""
        alerts = [each for each in test.pop("alert_rule_test", []) if each["alertname"] in self._dependent]
        queries = test.pop("promql_expr_test", [])
        # A query for several rules would lack those that are removed.
        queries = [each for each in queries if "__name__=~" not in each["expr"]]
        queries = [each for each in queries if any(name in each["expr"] for name in self._dependent)]
        test |= {"alert_rule_test": alerts, "promql_expr_test": queries}
        return bool(alerts or queries)


def write(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return path


def undetected(name: str, mutants: Iterable[tuple[str, Rule]], folder: Path) -> list[str]:
    tester = RuleTester(folder, name)
    assert tester.failure(BY_NAME[name]) == ""
    return [change for change, mutant in mutants if not tester.failure(mutant)]


@pytest.mark.parametrize("name", ALL_ALERTS)
def test_major_change_of_alert_fails_unit_tests(name: str, tmp_path: Path) -> None:
    assert undetected(name, major_mutants(BY_NAME[name]), tmp_path) == []


@pytest.mark.soak
@pytest.mark.timeout(LONG_TEST)
@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in TIME_ZONE_RULES])
def test_any_change_of_rule_fails_unit_tests(name: str, tmp_path: Path) -> None:
    assert undetected(name, [*major_mutants(BY_NAME[name]), *minor_mutants(BY_NAME[name])], tmp_path) == []
