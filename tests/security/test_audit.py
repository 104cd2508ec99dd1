"""The audit of the lock files finds modified, yanked, vulnerable and unneeded packages."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from testing.program import ROOT, TOOL_SECONDS

LOCKED = ("certifi", "charset-normalizer", "idna", "requests", "urllib3")
"""requests and its dependencies. They are installed, so that the audit can read their requirements."""
PAGE = "application/vnd.pypi.simple.v1+json"


def digest(name: str) -> str:
    return name.encode().hex().ljust(64, "0")[:64]


class Index(ThreadingHTTPServer):
    """A package index that has the locked version of each package."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, Any] = {}
        for name in LOCKED:
            file = {"filename": f"{name.replace('-', '_')}-{version(name)}.tar.gz", "hashes": {"sha256": digest(name)}}
            self.pages[f"/simple/{name}/"] = {"files": [file | {"yanked": False}]}
            self.pages[f"/pypi/{name}/{version(name)}/json"] = {
                "info": {"version": version(name)},
                "vulnerabilities": [],
            }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple/"

    def file(self, name: str) -> dict[str, Any]:
        file: dict[str, Any] = self.pages[f"/simple/{name}/"]["files"][0]
        return file

    def report(self, name: str, *vulnerabilities: dict[str, Any]) -> None:
        self.pages[f"/pypi/{name}/{version(name)}/json"]["vulnerabilities"] = list(vulnerabilities)


class _Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path)
        body = page if isinstance(page, bytes) else json.dumps(page).encode()
        self.send_response(404 if page is None else 200)
        self.send_header("Content-Type", PAGE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[Index]:
    with Index() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server
        server.shutdown()


class Project:
    """A project that depends on requests, with its lock files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.require("requests")
        self.lock = "".join(f"{name}=={version(name)} \\\n    --hash=sha256:{digest(name)}\n" for name in LOCKED)

    def require(self, *requirements: str) -> None:
        project = f"[project]\ndependencies = {list(requirements)}\noptional-dependencies.dev = []\n"
        (self.folder / "pyproject.toml").write_text(project)

    def audit(self, index: str) -> tuple[int, str]:
        for name in ("requirements.lock", "requirements-dev.lock"):
            (self.folder / name).write_text(self.lock)
        return audit(self.folder, index)


def audit(folder: Path, index: str) -> tuple[int, str]:
    """Run the audit. Returns its exit code and output."""
    command = [sys.executable, str(ROOT / ".ci/audit.py"), str(folder), f"--index={index}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_valid_lock_file_has_no_findings(project: Project, index: Index) -> None:
    assert project.audit(index.url) == (0, "5 packages, 0 findings, 0 checks not made\n")


@pytest.mark.parametrize("reason", [True, "", "it deletes your home"])
def test_yanked_release_is_found(project: Project, index: Index, reason: object) -> None:
    index.file("idna")["yanked"] = reason
    code, output = project.audit(index.url)
    assert code == 1
    assert f"FOUND: it was yanked: {reason}: idna {version('idna')}\n" in output


def test_hash_missing_from_index_is_found(project: Project, index: Index) -> None:
    project.lock = project.lock.replace(digest("idna"), "e" * 64)
    code, output = project.audit(index.url)
    assert code == 1
    assert f"FOUND: the index has no file of sha256:{'e' * 64}: idna {version('idna')}\n" in output


def test_additional_unknown_hash_is_found(project: Project, index: Index) -> None:
    good = f"--hash=sha256:{digest('idna')}"
    project.lock = project.lock.replace(good, f"{good} \\\n    --hash=sha256:{'e' * 64}")
    code, output = project.audit(index.url)
    assert code == 1
    assert f"FOUND: the index has no file of sha256:{'e' * 64}: idna {version('idna')}\n" in output


def test_hash_of_another_version_is_found(project: Project, index: Index) -> None:
    index.file("idna")["filename"] = "idna-0.1-py3-none-any.whl"
    code, output = project.audit(index.url)
    assert code == 1
    assert f"FOUND: a hash belongs to idna-0.1-py3-none-any.whl: idna {version('idna')}\n" in output


VULNERABLE = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fixed_in": ["9.9"], "withdrawn": None}


def test_known_vulnerability_is_found(project: Project, index: Index) -> None:
    index.report("urllib3", VULNERABLE)
    code, output = project.audit(index.url)
    assert code == 1
    assert f"FOUND: it is vulnerable: CVE-1, PYSEC-1, fixed in 9.9: urllib3 {version('urllib3')}\n" in output


def test_withdrawn_vulnerability_is_ignored(project: Project, index: Index) -> None:
    index.report("urllib3", VULNERABLE | {"withdrawn": "2026-01-01T00:00:00Z"})
    assert project.audit(index.url)[0] == 0


def test_index_with_newest_version_only_is_used(project: Project, index: Index) -> None:
    index.report("urllib3", VULNERABLE)
    index.pages["/pypi/urllib3/json"] = index.pages.pop(f"/pypi/urllib3/{version('urllib3')}/json")
    code, output = project.audit(index.url)
    assert code == 1
    assert "FOUND: it is vulnerable: CVE-1, PYSEC-1" in output


@pytest.mark.parametrize("newest", [None, "999"])
def test_unaudited_package_is_reported_without_finding(project: Project, index: Index, newest: str | None) -> None:
    page = index.pages.pop(f"/pypi/urllib3/{version('urllib3')}/json")
    if newest:
        index.pages["/pypi/urllib3/json"] = page | {"info": {"version": newest}, "vulnerabilities": [VULNERABLE]}
    code, output = project.audit(index.url)
    assert code == 0
    assert re.search(rf"not audited: .*newest version only.*: urllib3 {version('urllib3')}\n", output)


@pytest.mark.parametrize("page", [b"<html>", b"[]", b"null", b'{"files": [{}], "info": {}}', b'{"files": 5}'])
def test_invalid_index_is_reported_without_finding(project: Project, index: Index, page: bytes) -> None:
    for path in index.pages:
        index.pages[path] = page
    code, output = project.audit(index.url)
    assert code == 0
    assert "not audited: the index returned no valid response" in output


def test_unreachable_index_is_reported_without_finding(project: Project) -> None:
    code, output = project.audit("http://127.0.0.1:1/simple")
    assert code == 0
    assert "not audited: the index returned no valid response (ConnectionError): certifi" in output


def test_unneeded_package_is_found(project: Project, index: Index) -> None:
    project.require("urllib3")
    code, output = project.audit(index.url)
    assert code == 1
    assert "FOUND: nothing requires it: certifi, charset-normalizer, idna, requests\n" in output


@pytest.mark.parametrize("wanted", ["requests>=999", "structlog"])
def test_unlocked_requirement_is_found(project: Project, index: Index, wanted: str) -> None:
    project.require("requests", wanted)
    code, output = project.audit(index.url)
    assert code == 1
    assert re.search(rf"FOUND: pyproject.toml requires it, but the lock file has .*: {wanted}\n", output)


@pytest.mark.parametrize(
    "line",
    [
        "--index-url https://evil.example/simple",
        "--extra-index-url https://evil.example/simple",
        "-r https://evil.example/requirements.txt",
        "-e git+https://evil.example/requests",
        "https://evil.example/requests.whl",
        "requests @ https://evil.example/requests.whl",
        f"requests @ https://evil.example/requests.whl --hash=sha256:{digest('requests')}",
        "requests",
        f"requests>=2 --hash=sha256:{digest('requests')}",
        f"requests=={version('requests')}",
    ],
)
def test_unpinned_line_is_found(project: Project, index: Index, line: str) -> None:
    project.lock += f"{line}\n"
    code, output = project.audit(index.url)
    assert code == 1
    assert re.search(r"FOUND: requirements.lock (has a line that pins nothing|does not pin it to files)", output)


def test_every_locked_package_is_needed_and_pinned() -> None:
    code, output = audit(ROOT, "http://127.0.0.1:1/simple")
    assert code == 0, output
