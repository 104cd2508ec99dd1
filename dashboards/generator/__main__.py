"""Writes the JSON files of the dashboards."""

from dashboards.generator import dashboards

if __name__ == "__main__":
    for path, dashboard in dashboards():
        path.write_text(dashboard.to_json(), "utf-8")
