"""Draws the dashboards and the status page, writes the pictures to build/pictures/, and prints the faults of each.

python -m tests.dashboards.pictures                                          # everything, as `make pictures`
python -m tests.dashboards.pictures --scenario day --version 10.4            # a part
python -m tests.dashboards.pictures --scenario two --width 1140 --parameter var-lock=2004 dashboards/exporter.json
"""

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from testing.program import ROOT, eventually
from testing.program import running as running_program
from tests.end_to_end.chromium import chromium
from tests.end_to_end.prometheus import Prometheus

from .grafana import FILES, FOLDER
from .rig import NARROW, NEWEST, OLDEST, WIDE, Rig, rig
from .scenarios import SCENARIOS, Scenario, running

PICTURES = ROOT / "build" / "pictures"
IMAGES = ROOT / "docs" / "images"
PARAMETERS = {"rare": {"var-job": "down for 5 h"}}
"""Selected values in a scenario."""
NAMED_LOCKS = 26
"""Locks of the demo, of the accounts whose key works."""
DOCUMENTED = {"lock-detail": {"var-lock": "2004"}}
"""Selected values in the pictures of README and docs."""


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="default: all")
    parser.add_argument("--version", action="append", choices=(OLDEST, NEWEST), help="of Grafana; default: both")
    parser.add_argument("--theme", action="append", choices=("dark", "light"))
    parser.add_argument("--width", action="append", type=int, help="of the window in pixels")
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="such as var-lock=2004")
    parser.add_argument("--interval", type=float, help="scrape interval in the data source; 0 if it is not set")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder of the pictures")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: all dashboards")
    return parser.parse_args()


def views(options: argparse.Namespace, scenario: str, version: str) -> set[tuple[str, int]]:
    """Return theme and width of each picture of a dashboard."""
    if options.theme or options.width:
        return set(itertools.product(options.theme or ["dark"], options.width or [WIDE]))
    if version == OLDEST:
        return {("dark", WIDE)}
    return {("dark", WIDE), ("dark", NARROW)} | ({("light", WIDE)} if scenario in {"day", "many", "empty"} else set())


def draw(window: Rig, server: Prometheus, options: argparse.Namespace, scenario: str, version: str) -> Iterator[str]:
    """Draw the pictures of a scenario. Yields the path of each picture, and its faults."""
    interval = SCENARIOS[scenario].scrape_interval if options.interval is None else options.interval
    selected = PARAMETERS.get(scenario, {}) | dict(each.split("=", 1) for each in options.parameter)
    for file in options.files or [FOLDER / name for name in FILES]:
        dashboard = json.loads(file.read_text("utf-8"))
        for theme, width in sorted(views(options, scenario, version)):
            panels = window.draw(dashboard, server, interval, width=width, theme=theme, parameters=selected)
            picture = options.out / f"{file.stem}-{scenario}-{version}-{theme}-{width}.png"
            window.take_picture(picture)
            yield str(picture)
            yield from (f"    {panel.title}: {fault}" for panel in panels for fault in panel.faults())
            if scenario == "empty":
                yield from (f"    {panel.title}: has no words" for panel in panels if not panel.has_words())
            if scenario == "day":
                yield from (f"    {panel.title}: has no data" for panel in panels if not panel.has_data)


def draw_images(window: Rig, server: Prometheus, scenario: Scenario) -> Iterator[str]:
    """Draw the pictures of README and docs, and yield their paths."""
    for name in FILES:
        stem = name.removesuffix(".json")
        dashboard = json.loads((FOLDER / name).read_text("utf-8"))
        window.draw(dashboard, server, scenario.scrape_interval, expand=False, parameters=DOCUMENTED.get(stem, {}))
        window.take_picture(IMAGES / f"dashboards-{stem}.png")
        yield str(IMAGES / f"dashboards-{stem}.png")


def draw_status_page() -> str:
    """Draw the demo's status page for README and docs, and return the path of the picture."""
    picture = IMAGES / "status-page.png"
    with running_program("--demo") as exporter, TemporaryDirectory() as folder, chromium(Path(folder)) as browser:
        exporter.wait_until_ready()
        eventually(lambda: exporter.get("/metrics").text.count("\nlock_info{") == NAMED_LOCKS, "names of all locks")
        size = {"width": 1120, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get(f"http://127.0.0.1:{exporter.port}/")
        browser.save_screenshot(str(picture))
    return str(picture)


def main() -> None:
    """Draw the pictures that the options select."""
    options = parse()
    is_complete = len(sys.argv) == 1
    if is_complete:
        print(draw_status_page(), flush=True)
    for version in options.version or (OLDEST, NEWEST):
        with rig(version) as window:
            for scenario in options.scenario or SCENARIOS:
                with running(scenario, SCENARIOS[scenario]) as server:
                    lines = [draw(window, server, options, scenario, version)]
                    if is_complete and (scenario, version) == ("day", NEWEST):
                        lines.append(draw_images(window, server, SCENARIOS[scenario]))
                    for line in itertools.chain(*lines):
                        print(line, flush=True)


if __name__ == "__main__":
    main()
