"""The Grafana dashboards: as JSON, to be imported as they are, and in `src` the code that writes it."""
