"""Links of all dashboards, and the text of their row "Help"."""

REPOSITORY = "https://github.com/tedee-exporter/tedee-exporter"
DOCS = f"{REPOSITORY}/blob/main/docs"
RUNBOOKS = f"{DOCS}/runbooks.md"

LINKS = {"Docs": f"{DOCS}/dashboards.md", "Runbooks": RUNBOOKS}
"""URL of each link to the documentation, by its title."""

TEXT = f"""
#### There is no data

1. Start the [exporter]({REPOSITORY}#readme) and open its status page, for example `http://localhost:10333/`. It shows
   each account and its last error.
2. Let Prometheus scrape the exporter, and check the target on the page *Status → Targets* of Prometheus:

   ```yaml
   scrape_configs:
     - job_name: tedee
       static_configs:
         - targets: ["localhost:10333"]
   ```

3. Select that Prometheus as the data source at the top of this dashboard. [Troubleshooting]({DOCS}/troubleshooting.md)
   has further causes.

#### What the colours mean

In tiles and tables: green: no action needed; yellow: check it; red: act; blue: in progress, or an update is available;
grey: not known. A cell without a colour is a plain value. In graphs, colours only distinguish the lines.

#### What else there is

- The icon next to the title of a panel explains the panel. Rows open with a click.
- The panels "Firing alerts" and the marks on the time axes need the [alerting rules]({DOCS}/alerts.md). The name of an
  alert links to its [runbook]({RUNBOOKS}).
- To change a panel, select *Edit* in its menu. [Queries]({DOCS}/queries.md) has queries to start from.
""".strip()
