"""Loads the alerting and recording rules."""

from pathlib import Path
from typing import Any

import yaml

from testing.program import ROOT

ALERTS = ROOT / "alerts"
RULES = ALERTS / "tedee.rules.yml"
NIGHT = ALERTS / "night.example.rules.yml"
ALERTMANAGER = ALERTS / "alertmanager.example.yml"
UNIT_TESTS = sorted((ALERTS / "tests").glob("*.yml"))

Rule = dict[str, Any]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def rules(*paths: Path) -> list[Rule]:
    return [rule for path in paths or (RULES, NIGHT) for group in load(path)["groups"] for rule in group["rules"]]


ALL_ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
