"""Prometheus scrapes the exporter with TLS, passwords and client certificates."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import requests
import trustme

from exporter.simulator import Address, Cloud, World, serve
from testing.program import TIMEOUT, Exporter, configuration, eventually, run, running
from tests.conftest import require_program
from tests.end_to_end.prometheus import Prometheus, prometheus
from tests.security.web_files import HASH, PAIR, PASSWORD, WebFiles

HOME = {"name": "home", "personal_key": "simulated-key-home"}
LOCKS = 6
OTHER = "another password"
CLIENT_CERTIFICATES = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}


@pytest.fixture(scope="module")
def address() -> Iterator[Address]:
    with serve(Cloud(World.demo())) as address:
        yield address


@pytest.fixture
def web(tmp_path: Path) -> WebFiles:
    return WebFiles(tmp_path)


@contextlib.contextmanager
def exporter_of(web: WebFiles, address: Address) -> Iterator[Exporter]:
    settings = configuration(web.folder, address.url, [HOME])
    with running(f"--config.file={settings}", f"--web.config.file={web.file}") as exporter:
        yield exporter


@contextlib.contextmanager
def scraping(
    web: WebFiles, exporter: Exporter, *, password: str = "", client: Path | None = None
) -> Iterator[Prometheus]:
    """Run a Prometheus that trusts the CA and has a password or a certificate."""
    job: dict[str, Any] = {"scheme": "https", "tls_config": {"ca_file": str(web.folder / "ca.pem")}}
    if password:
        job["basic_auth"] = {
            "username": "prometheus",
            "password_file": str(web.put("password", password.encode())),
        }
    if client:
        job["tls_config"] |= {"cert_file": str(client), "key_file": str(client)}
    with prometheus(web.folder, f"127.0.0.1:{exporter.port}", **job) as running:
        yield running


def has_all_locks(prometheus: Prometheus) -> bool:
    return len(prometheus.query("lock_battery_level")) == LOCKS and prometheus.target()["health"] == "up"


def last_error(prometheus: Prometheus) -> str:
    """Return the error that Prometheus reports for its target, or an empty text if the target is not down."""
    target = prometheus.target()
    return str(target["lastError"]) if target["health"] == "down" else ""


def test_prometheus_scrapes_over_tls_with_a_password(web: WebFiles, address: Address) -> None:
    web.write(tls_server_config=PAIR, basic_auth_users={"prometheus": HASH})
    with exporter_of(web, address) as exporter, scraping(web, exporter, password=PASSWORD) as prometheus:
        eventually(lambda: has_all_locks(prometheus), "all locks")
        assert prometheus.target()["scrapeUrl"] == f"https://127.0.0.1:{exporter.port}/metrics"
        assert prometheus.target()["lastError"] == ""


def test_wrong_password_is_reported_by_prometheus(web: WebFiles, address: Address) -> None:
    web.write(tls_server_config=PAIR, basic_auth_users={"prometheus": HASH})
    with exporter_of(web, address) as exporter, scraping(web, exporter, password=OTHER) as prometheus:
        error = eventually(lambda: last_error(prometheus), "a scrape that fails")
        assert error == "server returned HTTP status 401 Unauthorized"
        assert prometheus.query("lock_battery_level") == []
        web.put("password", PASSWORD.encode())
        eventually(lambda: has_all_locks(prometheus), "all locks")


def test_client_certificate_needs_an_allowed_name(web: WebFiles, address: Address) -> None:
    web.write(tls_server_config=PAIR | CLIENT_CERTIFICATES | {"client_allowed_sans": ["prometheus.example"]})
    client = web.client("other.example")
    with exporter_of(web, address) as exporter, scraping(web, exporter, client=client) as prometheus:
        error = eventually(lambda: last_error(prometheus), "a scrape that fails")
        assert "HTTP status" not in error
        assert prometheus.query("lock_battery_level") == []
        client.write_bytes(web.client("prometheus.example").read_bytes())
        eventually(lambda: has_all_locks(prometheus), "all locks")


def test_certificate_and_password_change_without_restart(web: WebFiles, address: Address) -> None:
    web.write(tls_server_config=PAIR, basic_auth_users={"prometheus": HASH})
    old_ca = web.put("old-ca.pem", web.ca.cert_pem.bytes())
    with exporter_of(web, address) as exporter, scraping(web, exporter, password=PASSWORD) as prometheus:
        eventually(lambda: has_all_locks(prometheus), "all locks")

        renewed = trustme.CA()
        web.issue(renewed)
        hashed = bcrypt.hashpw(OTHER.encode(), bcrypt.gensalt(4)).decode()
        web.write(tls_server_config=PAIR, basic_auth_users={"prometheus": hashed})
        error = eventually(lambda: last_error(prometheus), "Prometheus to notice")
        assert "certificate signed by unknown authority" in error or "401" in error
        eventually(lambda: not trusts(exporter, old_ca), "the new certificate")

        ca = web.put("ca.pem", renewed.cert_pem.bytes())
        eventually(lambda: "401" in last_error(prometheus), "Prometheus to trust the new certificate")
        assert status_of(exporter, ca, PASSWORD) == 401
        assert status_of(exporter, ca, OTHER) == 200

        web.put("password", OTHER.encode())
        eventually(lambda: has_all_locks(prometheus), "all locks, with the new certificate and password")
        assert exporter.process.poll() is None


def status_of(exporter: Exporter, ca: Path, password: str) -> int:
    """Return the status code for a client that trusts the CA and has the password."""
    url = f"https://127.0.0.1:{exporter.port}/metrics"
    return requests.get(url, verify=str(ca), auth=("prometheus", password), timeout=TIMEOUT).status_code


def trusts(exporter: Exporter, ca: Path) -> bool:
    """Return True if a client that trusts the CA can connect to the exporter."""
    try:
        status_of(exporter, ca, "")
    except requests.exceptions.SSLError:
        return False
    return True


def test_promtool_and_exporter_accept_the_same_file(web: WebFiles, address: Address) -> None:
    web.write(
        tls_server_config=PAIR
        | CLIENT_CERTIFICATES
        | {
            "min_version": "TLS12",
            "max_version": "TLS13",
            "cipher_suites": ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"],
            "prefer_server_cipher_suites": True,
        },
        http_server_config={
            "http2": False,
            "headers": {"Strict-Transport-Security": "max-age=31536000", "X-Frame-Options": "deny"},
        },
        basic_auth_users={"prometheus": HASH, "other": HASH},
    )
    command = [require_program("promtool"), "check", "web-config", str(web.file)]
    promtool = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (promtool.returncode, promtool.stderr) == (0, f"{web.file} SUCCESS\n")
    settings = configuration(web.folder, address.url, [HOME])
    exporter = run(f"--config.file={settings}", f"--web.config.file={web.file}", "--config.check")
    assert (exporter.returncode, exporter.stderr) == (0, "")
