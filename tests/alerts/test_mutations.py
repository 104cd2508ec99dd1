"""Lost if these fail: unit tests of the alerts that notice when an alert is broken.

Each rule is broken in many ways, one at a time, and each time promtool's unit tests have to fail.
"""

import re
import subprocess
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.rules import ALL_ALERTS, NIGHT, RULES, UNIT_TESTS, Rule, load, rules
from tests.conftest import require_program
from tests.program import LONG_TEST

BY_NAME: dict[str, Rule] = {rule.get("alert") or rule["record"]: rule for rule in rules()}
BY_THE_CLOCK = {"tedee:utc_offset:hours", "tedee:night:hours"}
"""Tested against the time zone itself, in `test_night`."""


def gross(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """The rule, broken: what was done to it, and what became of it."""
    expression = str(rule["expr"])
    yield "never true", rule | {"expr": "vector(0) > 1"}
    yield "always true", rule | {"expr": "vector(1)"}
    for clause in clauses(expression):
        yield f"without `{' '.join(clause.split())}`", rule | {"expr": expression.replace(clause, "", 1)}
    for key in {"for", "keep_firing_for"} & rule.keys():
        yield f"no {key}", {name: value for name, value in rule.items() if name != key}
        yield f"{key} is thrice as long", rule | {key: f"{3 * int(rule[key][:-1])}{rule[key][-1]}"}


def subtle(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """The rule with a number that is another, or with a comparison that is the opposite."""
    expression = str(rule["expr"])
    # Numbers that are no part of a name or a duration, nor the 1 of `topk`.
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
    """Each `and`, `or` and `unless` outside of parentheses, with all that stands behind it up to the next."""
    level, starts = 0, []
    for found in re.finditer(r"[()]|\b(?:and|or|unless)\b", expression):
        level += {"(": 1, ")": -1}.get(found[0], 0)
        if level == 0 and found[0] != ")":
            starts.append(found.start())
    return [expression[start:end] for start, end in pairwise([*starts, len(expression)])]


def reads(rule: Rule) -> set[str]:
    """The recorded series that a rule reads."""
    return {name for name in BY_NAME if re.search(rf"(?<![\w:]){name}(?![\w:])", str(rule["expr"]))}


def with_sources(names: set[str]) -> set[str]:
    """Rules, and all those that they are made from."""
    while more := {source for name in names for source in reads(BY_NAME[name])} - names:
        names = names | more
    return names


class Bench:
    """The rules and unit tests that one rule has to do with: the whole file takes a hundred times as long."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._concerned = {other for other in BY_NAME if name in with_sources({other})}
        self._needed = with_sources(self._concerned)
        self._files: list[Path] = []
        for path in UNIT_TESTS:
            content = load(path)
            content["rule_files"] = ["rules.yml"]
            content["tests"] = [test for test in content["tests"] if self._narrow(test)]
            if content["tests"]:
                self._files.append(write(folder / path.name, content))

    def complaint(self, rule: Rule) -> str:
        """What promtool says when the rule stands in its place; nothing if its tests pass."""
        groups = [group for path in (RULES, NIGHT) for group in load(path)["groups"]]
        for group in groups:
            kept = [each for each in group["rules"] if (each.get("alert") or each["record"]) in self._needed]
            group["rules"] = [rule if (each.get("alert") or each["record"]) == self._name else each for each in kept]
        write(self._folder / "rules.yml", {"groups": [group for group in groups if group["rules"]]})
        result = subprocess.run(
            [require_program("promtool"), "test", "rules", *self._files], capture_output=True, text=True, check=False
        )
        said = result.stdout + result.stderr
        assert "could not parse expression" not in said, said
        return "" if result.returncode == 0 else said

    def _narrow(self, test: dict[str, Any]) -> bool:
        """Leave in a test only what has to do with the rule; whether that is anything."""
        looks = [look for look in test.pop("alert_rule_test", []) if look["alertname"] in self._concerned]
        asks = [ask for ask in test.pop("promql_expr_test", []) if any(name in ask["expr"] for name in self._concerned)]
        test |= {"alert_rule_test": looks, "promql_expr_test": asks}
        return bool(looks or asks)


def write(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return path


def unnoticed(name: str, mutants: Iterable[tuple[str, Rule]], folder: Path) -> list[str]:
    bench = Bench(folder, name)
    assert bench.complaint(BY_NAME[name]) == ""
    return [what for what, mutant in mutants if not bench.complaint(mutant)]


@pytest.mark.parametrize("name", ALL_ALERTS)
def test_no_alert_can_be_broken_without_a_unit_test_that_fails(name: str, tmp_path: Path) -> None:
    assert unnoticed(name, gross(BY_NAME[name]), tmp_path) == []


@pytest.mark.soak
@pytest.mark.timeout(LONG_TEST)
@pytest.mark.parametrize("name", [name for name in BY_NAME if name not in BY_THE_CLOCK])
def test_no_rule_can_be_changed_without_a_unit_test_that_fails(name: str, tmp_path: Path) -> None:
    assert unnoticed(name, [*gross(BY_NAME[name]), *subtle(BY_NAME[name])], tmp_path) == []
