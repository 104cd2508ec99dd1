"""Writes the table of docs/alerts.md from the rules and the runbooks: `python -m alerts`."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
RULES = ROOT / "alerts" / "tedee.rules.yml"
NIGHT = ROOT / "alerts" / "night.example.rules.yml"
RUNBOOKS = ROOT / "docs" / "runbooks.md"
PAGE = ROOT / "docs" / "alerts.md"
BEGIN, END = "<!-- alerts: begin -->\n", "<!-- alerts: end -->\n"
CONSTANT = r"[\d.* ]+"

Rule = dict[str, Any]


def page() -> str:
    """Return the page with an up-to-date table."""
    before, begin, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    return before + begin + table() + end + after


def table() -> str:
    """Return all alerts as a Markdown table."""
    rows = ["| alert | severity | after | ends | limit | meaning |", "|---|---|---|---|---|---|"]
    rules = [rule for path in (RULES, NIGHT) for rule in load(path)]
    meanings = first_sentences()
    for rule in rules:
        if name := rule.get("alert"):
            limits = ", ".join(f"`{limit}` = {value}" for limit, value in limits_of(rule, rules).items())
            cells = (
                f"[{name}](runbooks.md#{name.lower()})",
                rule["labels"]["severity"],
                rule.get("for", ""),
                rule.get("keep_firing_for", ""),
                limits,
                meanings[name],
            )
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def load(path: Path) -> list[Rule]:
    """Return the rules of a file."""
    groups = yaml.safe_load(path.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def limits_of(rule: Rule, rules: list[Rule]) -> dict[str, str]:
    """Return the limits that a rule depends on, with their defaults.

    A limit is a recording rule with a constant.
    """
    expression = str(rule["expr"])
    if re.fullmatch(CONSTANT, expression):
        return {rule["record"]: expression}
    limits: dict[str, str] = {}
    for source in rules:
        name = source.get("record")
        if name and source != rule and re.search(rf"(?<![\w:]){name}(?![\w:])", expression):
            limits |= limits_of(source, rules)
    return limits


def first_sentences() -> dict[str, str]:
    """Return the first sentence of each runbook."""
    text = RUNBOOKS.read_text("utf-8")
    found = re.findall(r"(?m)^### (Tedee\w+)\n\n#### What it means\n\n((?:.+\n)+)", text)
    return {alert: re.split(r"(?<=\.)\s", " ".join(part.replace("**", "").split()))[0] for alert, part in found}


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
