"""A real Chromium."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.conftest import require_program

FLAGS = [
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,1600",
]


@contextlib.contextmanager
def chromium(folder: Path, *flags: str) -> Iterator[Chrome]:
    """Run Chromium with its profile in `folder`."""
    options = ChromeOptions()
    options.binary_location = require_program("chromium")
    for flag in [*FLAGS, f"--user-data-dir={folder}", *flags]:
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options=options, service=ChromeService(executable_path=require_program("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()
