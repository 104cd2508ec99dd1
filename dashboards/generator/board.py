"""A dashboard: what is around its panels."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    VariableModel,
)

from .colours import PURPLE
from .variables import KEPT, SOURCE

TAG = "tedee"
"""By which people find them."""
ADDRESSES = {"Locks": "/d/tedee-locks", "Lock": "/d/tedee-lock", "Exporter": "/d/tedee-exporter"}
"""By title of the link that leads there."""
SCHEMA = 39
"""Grafana 10.4's version of the JSON. Newer ones know how to read it."""

AnyPanel = stat.Panel | timeseries.Panel | statetimeline.Panel | table.Panel


class Alerts(AnnotationQuery):
    """Alerts on the time axis. The SDK has no words for how a Prometheus annotation is written out."""

    def __init__(self, expression: str) -> None:
        super().__init__(name="Alerts", datasource=SOURCE, enable=True, icon_color=PURPLE, expr=expression)

    def to_json(self) -> dict[str, object]:
        """As Grafana takes it."""
        return {
            **super().to_json(),
            # Newer Grafana asks the target, older `expr`.
            "target": {"refId": "Anno", "expr": self.expr},
            "titleFormat": "{{alertname}}",
            "textFormat": "{{account}} {{lock_name}} {{instance}}",
            "tagKeys": "severity",
        }


@dataclass(frozen=True)
class Section:
    """Panels that belong together, line by line; a line's widths make 24."""

    panels: Sequence[AnyPanel]
    title: str | None = None


@dataclass(frozen=True)
class Board:
    """A dashboard."""

    uid: str
    title: str
    description: str
    span: str
    """How far back it looks at first."""
    variables: Sequence[VariableModel]
    alerts: str
    """Expression of the alerts that concern it."""
    sections: Sequence[Section] = field(default_factory=tuple)

    def model(self) -> Dashboard:
        """As the SDK has it."""
        builder = (
            builders.Dashboard(self.title)
            .uid(self.uid)
            .description(self.description)
            .tags([TAG, "prometheus"])
            .readonly()
            .tooltip(DashboardCursorSync.CROSSHAIR)
            .time(f"now-{self.span}", "now")
            .refresh("30s")
        )
        for title, address in ADDRESSES.items():
            if address != f"/d/{self.uid}":
                # Not the lock: who leaves it wants to see the others, and "all of them" is to mean all.
                url = f"{address}?{'&'.join(f'${{{name}:queryparam}}' for name in KEPT)}"
                link = builders.DashboardLink(title).type(DashboardLinkType.LINK).icon("dashboard").url(url)
                builder.link(link.keep_time(True))
        for section in self.sections:
            if section.title:
                builder.with_row(builders.Row(section.title))
            for panel in section.panels:
                builder.with_panel(panel)
        built = builder.build()
        built.schema_version = SCHEMA
        built.templating.list_val = list(self.variables)
        built.annotations.list_val = [Alerts(self.alerts)]
        for number, each in enumerate(built.panels or (), start=1):
            each.id_val = number
        return built

    def json(self) -> str:
        """As Grafana imports it."""
        return json.dumps(self.model(), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
