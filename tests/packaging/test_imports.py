"""A process imports only what it uses: imports take most of its start and of its memory."""

import subprocess
import sys

import pytest

WHEN_USED = {
    "bcrypt": "passwords of the web server",
    "charset_normalizer": "nothing",
    "exporter.simulator": "the demo",
    "exporter.tedee.oauth.credentials": "accounts with OAuth",
    "exporter.tedee.oauth.token_endpoint": "accounts with OAuth",
    "exporter.tedee.oauth.token_file": "accounts with OAuth",
    "jinja2": "pages",
    "tabulate": "--sync.once",
    "yaml": "configuration files",
}


@pytest.fixture(scope="module")
def imported() -> set[str]:
    code = "import sys, exporter.__main__, exporter.cli; print(*sys.modules)"
    return set(subprocess.check_output([sys.executable, "-W", "error", "-c", code], text=True).split())


@pytest.mark.parametrize("module", WHEN_USED)
def test_start_does_not_import_what_few_processes_use(module: str, imported: set[str]) -> None:
    assert "requests" in imported
    assert module not in imported


def test_other_programs_can_use_charset_normalizer_after_the_client() -> None:
    code = "import exporter.tedee, charset_normalizer; print(charset_normalizer.__version__)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip()
