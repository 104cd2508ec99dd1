"""Draws dashboards in a browser with Grafana's own packages. docs/contributing/draw-the-dashboards.md describes it.

python -m tests.dashboards.rig    # updates the lock files of the packages
"""

import contextlib
import http.server
import json
import mimetypes
import re
import shutil
import subprocess
import tempfile
import threading
from base64 import b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlencode, urlsplit

from selenium.webdriver import Chrome

from exporter.tedee.models import DoorState, LockState
from testing.program import ROOT, TIMEOUT, TOOL_SECONDS
from tests.conftest import require_program, skip_unless_ci
from tests.end_to_end.chromium import chromium
from tests.end_to_end.prometheus import Prometheus

from .scripted_day import END

SOURCE = ROOT / "dashboards" / "rig"
BUILD = ROOT / "build" / "rig"
"""Folder for packages, pages and recordings. The next run uses them again."""
OLDEST, NEWEST = "10.4", "13.2"
"""Supported versions of Grafana."""
FONTS = Path("/usr/share/fonts/opentype/inter")
"""Inter, Grafana's font, from Debian's package fonts-inter."""
NPM_OPTIONS = (
    "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund", "--no-update-notifier",
    # Without a network, npm waits for a minute by default.
    "--fetch-retry-maxtimeout=10000",
)  # fmt: skip
WIDE, NARROW = 1440, 1140
"""Width of a window in pixels, with Grafana's menu closed and open."""
ROW_HEIGHT, HEAD_HEIGHT = 38, 250
"""Height in pixels of a row of the grid, and of at most what is above the grid."""
MARGIN = 16
"""Pixels below the last panel."""


# Packages and page


def package_files(version: str) -> dict[str, Path]:
    """Return the files of a version's packages by npm's names.

    They are not named `*.json`, because Grafana loads all such files of the folder `dashboards/` as dashboards.
    """
    return {
        "package.json": SOURCE / f"grafana-{version}.package",
        "package-lock.json": SOURCE / f"grafana-{version}.lock",
    }


def install_packages(version: str) -> Path:
    """Return the folder with the packages of a version. They are installed if they are not there yet."""
    folder = BUILD / f"grafana-{version}"
    files = package_files(version)
    complete = folder / "complete"
    lock = files["package-lock.json"].read_bytes()
    if not complete.exists() or complete.read_bytes() != lock:
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in files.items():
            shutil.copyfile(path, folder / name)
        try:
            _run(require_program("npm"), "ci", *NPM_OPTIONS, cwd=folder)
        except RuntimeError as error:
            skip_unless_ci(f"the packages of Grafana cannot be installed: {error}")
        complete.write_bytes(lock)
    return folder


def build_page(version: str) -> Path:
    """Return the folder with the page of a version. It is built if a source is newer."""
    packages = install_packages(version)
    page = packages / "page"
    sources = [SOURCE / "build.mjs", packages / "complete", *(SOURCE / "src").iterdir()]
    script = page / "main.js"
    if not script.exists() or script.stat().st_mtime < max(path.stat().st_mtime for path in sources):
        _run(require_program("node"), str(SOURCE / "build.mjs"), version, str(packages), str(page), cwd=packages)
    return page


def update_lock_file(version: str) -> None:
    """Write the lock file of a version's packages, with the newest versions that they allow."""
    files = package_files(version)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copyfile(files["package.json"], folder / "package.json")
        options = ("--package-lock-only", "--omit-lockfile-registry-resolved", *NPM_OPTIONS)
        _run(require_program("npm"), "install", *options, cwd=folder)
        shutil.copyfile(folder / "package-lock.json", files["package-lock.json"])


def _run(*command: str, cwd: Path) -> None:
    result = subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True, timeout=TOOL_SECONDS)
    if result.returncode:
        raise RuntimeError(f"{command} failed:\n{result.stderr[-2000:]}")


class _Server(http.server.ThreadingHTTPServer):
    """Serves the page, the icons and fonts, and the dashboards that are drawn."""

    daemon_threads = True

    def __init__(self, page: Path, packages: Path) -> None:
        self.page = page
        self.icons = packages / "node_modules" / "@grafana" / "ui" / "dist" / "public" / "img"
        self.dashboard = b""
        super().__init__(("127.0.0.1", 0), _Handler)

    def content(self, path: str) -> bytes:
        """Return the content of a path. Raises OSError if there is none."""
        if path == "/dashboard":
            return self.dashboard
        if match := re.search(r"/img/([\w/.-]+)$", path):
            return (self.icons / match[1]).read_bytes()
        if match := re.search(r"/fonts/inter/([\w-]+)\.woff2$", path):
            return (FONTS / f"{match[1]}.otf").read_bytes()
        return (self.page / (path.removeprefix("/") or "index.html")).read_bytes()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Respond with a file."""
        path = urlsplit(self.path).path
        try:
            body = self.server.content(path)
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", mimetypes.guess_type(path)[0] or "text/html")
        self.send_header("Content-Length", str(len(body)))
        if path != "/dashboard":
            # Chromium stores compiled scripts with their files.
            self.send_header("Cache-Control", "max-age=3600")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


# Panels


@dataclass(frozen=True)
class Text:
    """A text of a panel."""

    text: str
    size: float
    """Size of the font in pixels."""
    is_content: bool
    """False for the title."""
    is_cut_off: bool
    """True if the text is longer than its place."""

    @property
    def may_be_cut_off(self) -> bool:
        """True for a long name, which Grafana shows in full if the pointer is over it."""
        return self.is_content and len(self.text) > MAX_NAME


MAX_NAME = 20
"""Characters of the longest text that must fit in tables and legends. Users can choose any name."""
MIN_SIZE = 10.0
"""Size in pixels of the smallest text that can be read."""
NO_VALUES = re.compile(r"\b(?:Infinity|undefined|NaN|null|Invalid date)\b|\[object Object\]|∞")
"""What JavaScript shows for missing values."""
CODES = {str(code.value) for kind in (LockState, DoorState) for code in kind}


@dataclass(frozen=True)
class Panel:
    """What a panel shows."""

    title: str
    type: str
    texts: list[Text]
    is_drawn: bool
    error: str | None
    """Error of a query."""
    has_data: bool
    hidden_width: int
    """Number of pixels by which the columns of a table are wider than the panel."""

    @classmethod
    def of(cls, measured: Mapping[str, Any]) -> "Panel":
        """Return the panel of a measurement of `src/measure.js`."""
        return cls(
            title=measured["title"],
            type=measured["type"],
            texts=[Text(each["text"], each["size"], each["isContent"], each["isCutOff"]) for each in measured["texts"]],
            is_drawn=measured["isDrawn"],
            error=measured["error"],
            has_data=measured["hasData"],
            hidden_width=measured["hiddenWidth"],
        )

    def faults(self) -> list[str]:
        """Return what is wrong with the panel, whatever its data are."""
        return list(dict.fromkeys(self._faults()))

    def _faults(self) -> Iterator[str]:
        if not self.is_drawn:
            yield "is not drawn"
        if self.error:
            yield f"has an error: {self.error}"
        if self.hidden_width:
            yield f"the columns are {self.hidden_width} pixels wider than the panel"
        for each in self.texts:
            if each.is_cut_off and not (self.type != "stat" and each.may_be_cut_off):
                yield f"{each.text!r} is cut off"
            if each.size < MIN_SIZE:
                yield f"{each.text!r} has a size of {each.size:g} pixels"
            if NO_VALUES.search(each.text):
                yield f"{each.text!r} is not a value"
            if self.type in {"stat", "table"} and self._is_code(each):
                yield f"{each.text!r} has no text"

    def has_words(self) -> bool:
        """Returns True if the panel shows a word in addition to its title."""
        return any(each.is_content and re.search(r"[A-Za-z]{2,}", each.text) for each in self.texts)

    @staticmethod
    def _is_code(text: Text) -> bool:
        """Returns True for a documented code, and for a negative number, which is always a substitute."""
        match = re.fullmatch(r"(?:code )?(-?\d+)", text.text)
        return match is not None and (match[1].startswith("-") or (text.text != match[1] and match[1] in CODES))


class Rig:
    """A browser window with one dashboard."""

    def __init__(self, browser: Chrome, server: _Server) -> None:
        self._browser = browser
        self._server = server
        self._width = self._height = 0

    def draw(
        self,
        dashboard: Any,
        prometheus: Prometheus,
        scrape_interval: float | None,
        *,
        width: int = WIDE,
        theme: str = "dark",
        expand: bool = True,
        parameters: Mapping[str, str] = MappingProxyType({}),
    ) -> list[Panel]:
        """Draw a dashboard as it is at the end of a recording, and return its panels.

        Args:
            dashboard: JSON of the dashboard.
            prometheus: server with the recording.
            scrape_interval: the one in the settings of the data source, in seconds. None if it is not set.
            width: of the window, in pixels.
            theme: "dark" or "light".
            expand: whether all rows are expanded.
            parameters: those of Grafana's addresses, such as `var-lock` and `from`.
        """
        self._server.dashboard = json.dumps(dashboard).encode()
        all_parameters = {
            "dashboard": "/dashboard",
            "prometheus": prometheus.url,
            # A few seconds after the last scrape, so that its data have an age.
            "now": f"{END + 5:.0f}",
            "scrapeInterval": f"{scrape_interval:g}s" if scrape_interval else "",
            "theme": theme,
            **({"expand": "true"} if expand else {}),
            **parameters,
        }
        self._width, self._height = width, HEAD_HEIGHT + ROW_HEIGHT * _rows(dashboard, expand)
        self._browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "UTC"})
        self._set_size()
        self._browser.get(f"http://127.0.0.1:{self._server.server_port}/?{urlencode(all_parameters)}")
        return self._panels()

    def resize(self, width: int) -> list[Panel]:
        """Change the width of the window, and return the panels."""
        self._width = width
        self._set_size()
        return self._panels()

    def take_picture(self, path: Path) -> None:
        """Write a picture of the page as a PNG file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = "[...document.querySelectorAll('.react-grid-item')]"
        bottom = self._browser.execute_script(
            f"return Math.max(...{cells}.map((each) => each.getBoundingClientRect().bottom))"
        )
        area = {"x": 0, "y": 0, "width": self._width, "height": bottom + MARGIN, "scale": 1}
        picture = self._browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "clip": area})
        path.write_bytes(b64decode(picture["data"]))

    def _set_size(self) -> None:
        size = {"width": self._width, "height": self._height, "deviceScaleFactor": 1, "mobile": False}
        self._browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def _panels(self) -> list[Panel]:
        # A page that could not be loaded has no function `rig`.
        result = self._browser.execute_async_script("""
            const [done] = arguments;
            (async () => done({panels: await window.rig()}))().catch((error) => done({error: error.stack}));
        """)
        if "error" in result:
            log = "\n".join(entry["message"] for entry in self._browser.get_log("browser"))  # type: ignore[no-untyped-call]
            raise AssertionError(f"{result['error']}\n{log}")
        return [Panel.of(each) for each in result["panels"]]


def _rows(dashboard: Any, expand: bool) -> int:
    """Return the number of rows of the grid."""
    hidden = 0
    for panel in dashboard["panels"]:
        if expand and panel.get("collapsed") and panel["panels"]:
            hidden += max(_bottom(each) for each in panel["panels"]) - _bottom(panel)
    return hidden + max(map(_bottom, dashboard["panels"]))


def _bottom(panel: Any) -> int:
    return int(panel["gridPos"]["y"] + panel["gridPos"]["h"])


@contextlib.contextmanager
def rig(version: str) -> Iterator[Rig]:
    """Open a browser that draws dashboards with the packages of a version of Grafana."""
    if not FONTS.exists():
        skip_unless_ci(f"{FONTS} does not exist; .ci/install-test-programs installs the font on Debian")
    server = _Server(build_page(version), install_packages(version))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        with tempfile.TemporaryDirectory() as profile, chromium(Path(profile), "--lang=en-US") as browser:
            browser.set_script_timeout(TIMEOUT)
            yield Rig(browser, server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    for each in (OLDEST, NEWEST):
        update_lock_file(each)
