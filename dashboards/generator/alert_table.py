"""Table of the alerts that are firing, for all dashboards."""

import yaml
from grafana_foundation_sdk.builders import table

from alerts.__main__ import NIGHT, RULES

from . import queries as q
from .documentation import RUNBOOKS
from .panels import COLOURED_CELL, Column, ValueFormat, table_panel
from .value_mappings import ALERT_SEVERITIES, NO_VALUE, Display, LabelTexts

RUNBOOK = "runbook"
"""Label with the name of the alert, for the link to its runbook."""
SINCE = ValueFormat("dateTimeFromNow", {q.NO_CHANGE: NO_VALUE})


def anchors() -> LabelTexts:
    """Return the anchor of each alert's runbook in the documentation. Grafana cannot convert a name to lower case."""
    rules = [
        rule
        for path in (RULES, NIGHT)
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]
    alerts = [rule for rule in rules if "alert" in rule]
    return {rule["alert"]: Display(rule["annotations"]["runbook_url"].partition("#")[2]) for rule in alerts}


def alert_table(matchers: str, *labels: Column) -> table.Panel:
    """Build the table of firing alerts that match, with columns for the given labels.

    If no alert is firing, the text is in the first of these columns. The column "Alert" would show the words as a link.
    """
    starts = q.alert_starts(matchers, labels[0].source)
    return table_panel(
        "Firing alerts",
        "Alerts that are firing, critical alerts first. The name links to the runbook, which explains what to do. "
        "This panel needs the alerting rules of the exporter.",
        [
            Column("severity", "Severity", texts=ALERT_SEVERITIES, cell=COLOURED_CELL, width=85),
            Column("alertname", "Alert", min_width=165, link=("Runbook", f"{RUNBOOKS}#${{__data.fields.Runbook}}")),
            *labels,
            Column("since", "Since", SINCE, width=140),
            Column(RUNBOOK, "Runbook", texts=anchors(), hidden=True),
        ],
        {"since": f'label_replace({starts}, "{RUNBOOK}", "$1", "alertname", "(.+)")'},
        [("Value #since", True), ("severity", False)],
    )
