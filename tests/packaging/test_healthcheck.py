"""The health check fails if the exporter hangs or is stopped, and passes with any valid configuration."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from testing.program import ROOT, TIMEOUT, free_port, running
from tests.security.web_files import HASH, PAIR, WebFiles

SCRIPT = ROOT / "packaging" / "docker" / "healthcheck.py"
MUTUAL = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}


def check(command_line: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, "-I", SCRIPT, command_line]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "", "[::1]", "[::]"])
def test_health_check_supports_all_listen_addresses(host: str, port: int) -> None:
    with running("--demo", f"--web.listen-address={host}:{port}") as exporter:
        assert exporter.port == port
        assert check(Path(f"/proc/{exporter.process.pid}/cmdline")).returncode == 0


def test_health_check_uses_first_of_several_addresses(port: int) -> None:
    addresses = [f"--web.listen-address={address}" for address in (f"127.0.0.1:{port}", "[::1]:0")]
    with running("--demo", *addresses) as exporter:
        assert exporter.port == port
        assert check(Path(f"/proc/{exporter.process.pid}/cmdline")).returncode == 0


@pytest.mark.parametrize(
    "flags",
    [
        ["--web.route-prefix=locks/"],
        ["--web.external-url=https://example.org/locks/"],
        ["--web.external-url=https://example.org/", "--web.route-prefix", "/locks"],
        ["--web.external-url=https://example.org/locks", "--web.route-prefix=/"],
    ],
)
def test_health_check_uses_the_route_prefix(flags: list[str], port: int) -> None:
    with running("--demo", f"--web.listen-address=127.0.0.1:{port}", *flags) as exporter:
        assert exporter.port == port
        assert check(Path(f"/proc/{exporter.process.pid}/cmdline")).returncode == 0


@pytest.mark.parametrize(
    "web_configuration",
    [
        {"tls_server_config": PAIR},
        {"tls_server_config": PAIR | {"min_version": "TLS13"}},
        {"tls_server_config": PAIR | MUTUAL},
        {"tls_server_config": PAIR | MUTUAL | {"max_version": "TLS12"}},
        {"basic_auth_users": {"prometheus": HASH}},
    ],
    ids=["TLS", "TLS 1.3", "clients' certificates", "clients' certificates, TLS 1.2", "passwords"],
)
def test_health_check_passes_with_client_authentication(
    web_configuration: dict[str, Any], port: int, tmp_path: Path
) -> None:
    file = WebFiles(tmp_path).write(**web_configuration)
    with running("--demo", f"--web.config.file={file}", f"--web.listen-address=127.0.0.1:{port}") as exporter:
        assert exporter.port == port
        checked = check(Path(f"/proc/{exporter.process.pid}/cmdline"))
        assert (checked.returncode, checked.stdout) == (0, "healthy\n")


@pytest.mark.parametrize("tls", [True, False])
def test_hanging_exporter_is_unhealthy(tls: bool, port: int, tmp_path: Path) -> None:
    files = WebFiles(tmp_path)
    file = files.write(**({"tls_server_config": PAIR} if tls else {}))
    with running("--demo", f"--web.config.file={file}", f"--web.listen-address=127.0.0.1:{port}") as exporter:
        assert exporter.port == port
        exporter.process.send_signal(signal.SIGSTOP)
        checked = check(Path(f"/proc/{exporter.process.pid}/cmdline"))
        assert (checked.returncode, checked.stdout[:12]) == (1, "no response:")


@pytest.mark.parametrize("flags", [["--web.listen-address=127.0.0.1:{}"], ["--web.listen-address", "127.0.0.1:{}"]])
def test_stopped_exporter_is_unhealthy(flags: list[str], port: int, tmp_path: Path) -> None:
    command_line = tmp_path / "cmdline"
    # The command line of `docker run --init`.
    text = ["/sbin/docker-init", "--", "python3", "tedee-exporter", *(flag.format(port) for flag in flags), ""]
    command_line.write_text("\0".join(text))
    assert check(command_line).returncode == 1
    with running("--demo", f"--web.listen-address=127.0.0.1:{port}") as exporter:
        assert exporter.port == port
        assert check(command_line).returncode == 0
