"""Definition of a dashboard: its panels, variables, links and annotations."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import stat, statetimeline, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from .colours import PURPLE
from .variables import DATA_SOURCE, LINKED_VARIABLES

TAG = "tedee"
"""Tag of all dashboards, for Grafana's search."""
DASHBOARD_URLS = {"Locks": "/d/tedee-locks", "Lock": "/d/tedee-lock", "Exporter": "/d/tedee-exporter"}
"""URL of each dashboard, by the title of the links to it."""
SCHEMA_VERSION = 39
"""Schema version of Grafana 10.4. Later versions migrate it."""

AnyPanel = stat.Panel | timeseries.Panel | statetimeline.Panel | table.Panel


class AlertAnnotation(models.AnnotationQuery):
    """Alerts on the time axes. The SDK has no fields for the options of Prometheus annotations."""

    def __init__(self, expression: str) -> None:
        super().__init__(name="Alerts", datasource=DATA_SOURCE, enable=True, icon_color=PURPLE, expr=expression)

    def to_json(self) -> dict[str, object]:
        """Return the annotation as an object for JSON."""
        return {
            **super().to_json(),
            # Recent versions of Grafana read the query from `target`, older versions from `expr`.
            "target": {"refId": "Anno", "expr": self.expr},
            "titleFormat": "{{alertname}}",
            "textFormat": "{{account}} {{lock_name}} {{instance}}",
            "tagKeys": "severity",
        }


@dataclass(frozen=True)
class PanelGroup:
    """Panels below one row title. The panels in a line have a total width of 24 grid columns."""

    panels: Sequence[AnyPanel]
    title: str | None = None


@dataclass(frozen=True)
class Dashboard:
    """Definition of a dashboard."""

    uid: str
    title: str
    description: str
    time_range: str
    """Default time range up to now, such as `24h`."""
    variables: Sequence[models.VariableModel]
    alerts: str
    """Expression for the alerts that are marked on the time axes."""
    groups: Sequence[PanelGroup] = field(default_factory=tuple)

    def build(self) -> models.Dashboard:
        """Return the dashboard as a model of the SDK."""
        builder = (
            builders.Dashboard(self.title)
            .uid(self.uid)
            .description(self.description)
            .tags([TAG, "prometheus"])
            .readonly()
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .time(f"now-{self.time_range}", "now")
            .refresh("30s")
        )
        for title, url in DASHBOARD_URLS.items():
            if url != f"/d/{self.uid}":
                # The selected lock is not passed on: links out of the detail dashboard show all locks.
                query = "&".join(f"${{{name}:queryparam}}" for name in LINKED_VARIABLES)
                link = builders.DashboardLink(title).type(models.DashboardLinkType.LINK).icon("dashboard")
                builder.link(link.url(f"{url}?{query}").keep_time(True))
        for group in self.groups:
            if group.title:
                builder.with_row(builders.Row(group.title))
            for panel in group.panels:
                builder.with_panel(panel)
        dashboard = builder.build()
        dashboard.schema_version = SCHEMA_VERSION
        dashboard.templating.list_val = list(self.variables)
        dashboard.annotations.list_val = [AlertAnnotation(self.alerts)]
        for number, built_panel in enumerate(dashboard.panels or (), start=1):
            built_panel.id_val = number
        return dashboard

    def to_json(self) -> str:
        """Return the JSON that Grafana imports."""
        return json.dumps(self.build(), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"
