"""Connections to untrusted servers and proxies: no secret is sent to them, and their responses are limited."""

import base64
import contextlib
import gzip
import logging
import os
import socket
import ssl
import subprocess
import sys
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import certifi
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.clock import boottime
from exporter.config.settings import Api, OAuth
from exporter.config.source import ConfigurationError, Source
from exporter.secrets import Secret
from exporter.sync.counters import Counters
from exporter.tedee import certificates
from exporter.tedee.bodies import MAX_BODY_BYTES
from exporter.tedee.client import TedeeClient
from exporter.tedee.credentials import personal_key
from exporter.tedee.endpoint import Endpoint
from exporter.tedee.errors import REASONS, CallError
from exporter.tedee.oauth import SCOPE
from exporter.tedee.oauth.token_endpoint import TokenEndpoint
from exporter.tedee.session import session
from testing.program import TIMEOUT, environment, run, running
from tests.security.listeners import Reply, Server, listening
from tests.tcp import tcp_server

KEY = "the-key-that-opens-doors"
CLIENT_SECRET = "the-secret-of-the-client"
REFRESH_TOKEN = "the-refresh-token"
PASSWORD = "the-password-of-the-proxy"
PASSWORD_IN_A_HEADER = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
SECRETS = (KEY, CLIENT_SECRET, REFRESH_TOKEN, PASSWORD, PASSWORD_IN_A_HEADER)

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")

MAX_DURATION = 45.0
"""Maximum duration in seconds of a call with a deadline of half a second, on a busy machine. Without the deadline, the
call would take minutes."""


class UnlimitedRateLimiter:
    def acquire(self, endpoint: Endpoint, user: str) -> AbstractContextManager[float]:
        return nullcontext(boottime())


def client(url: str, timeout: float = TIMEOUT) -> TedeeClient:
    return TedeeClient(
        "home",
        url=url,
        version="v37",
        credentials=personal_key(Secret(KEY)),
        timeout=timeout,
        session=session("tedee-exporter/test"),
        limiter=UnlimitedRateLimiter(),
        observer=Counters("home"),
    )


def token_endpoint(url: str, timeout: float = TIMEOUT) -> TokenEndpoint:
    return TokenEndpoint(
        "home",
        url=f"{url}/token",
        client_id="a-client",
        client_secret=Secret(CLIENT_SECRET),
        scope=SCOPE,
        timeout=timeout,
        session=session("tedee-exporter/test"),
    )


def sync(url: str, timeout: float = TIMEOUT) -> object:
    return client(url, timeout).sync().rows


def refresh(url: str, timeout: float = TIMEOUT) -> object:
    return token_endpoint(url, timeout).refresh(Secret(REFRESH_TOKEN), "its file", lambda _: None).lifetime


def sync_once(url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program for one sync."""
    environment: dict[str, Any] = {"TEDEE_PERSONAL_KEY": KEY, "TEDEE_API_URL": url, **variables}
    return run("--sync.once", **environment)


Call = Callable[..., object]
both = pytest.mark.parametrize("call", [sync, refresh])
"""Run a test with a call of the API and with one of the token endpoint."""
# Python's ssl module does not close a socket that is shut down between connecting and the TLS handshake.
shut_down_early = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")


def outcome(call: Call, url: str, timeout: float = TIMEOUT) -> CallError | None:
    """Return the error of a call, None if it succeeds. Assert that the error is printable and contains no secret."""
    try:
        call(url, timeout)
    except CallError as caught:
        error = caught
    else:
        return None
    assert error.reason in REASONS
    assert str(error).isprintable()
    for secret in SECRETS:
        assert secret not in str(error)
    return error


def failure(call: Call, url: str, timeout: float = TIMEOUT) -> CallError:
    error = outcome(call, url, timeout)
    assert error
    return error


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in (*CA_VARIABLES, "SSL_CERT_DIR", "NETRC", "SSLKEYLOGFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


@pytest.fixture
def trusted(ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file))


def server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


@pytest.fixture
def tedee(ca: trustme.CA) -> Iterator[Server]:
    """A server with a certificate for `https://tedee.test`, a name that only proxies can resolve."""
    with listening(tls=server_context(ca.issue_cert("tedee.test", "localhost"))) as server:
        yield server


# Certificates

NOW = datetime.now(UTC)


def self_signed(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own = trustme.CA()
    with trustme.Blob(own.private_key_pem.bytes() + own.cert_pem.bytes()).tempfile() as file:
        context.load_cert_chain(file)
    return context


def unknown_ca(ca: trustme.CA) -> ssl.SSLContext:
    return server_context(trustme.CA().issue_cert("localhost"))


def for_another_name(ca: trustme.CA) -> ssl.SSLContext:
    return server_context(ca.issue_cert("localhost.evil.example", "*.localhost"))


def expired(ca: trustme.CA) -> ssl.SSLContext:
    return server_context(
        ca.issue_cert("localhost", not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1))
    )


def not_yet_valid(ca: trustme.CA) -> ssl.SSLContext:
    return server_context(ca.issue_cert("localhost", not_before=NOW + timedelta(days=1)))


def tls_1_1(ca: trustme.CA) -> ssl.SSLContext:
    context = server_context(ca.issue_cert("localhost"))
    allow_only_old_tls(context)
    return context


def allow_only_old_tls(context: ssl.SSLContext) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")


IMPOSTORS = [self_signed, unknown_ca, for_another_name, expired, not_yet_valid, tls_1_1]


@both
@pytest.mark.parametrize("impostor", IMPOSTORS)
@pytest.mark.usefixtures("trusted")
def test_untrusted_server_receives_nothing(
    call: Call, impostor: Callable[[trustme.CA], ssl.SSLContext], ca: trustme.CA
) -> None:
    with listening(tls=impostor(ca)) as server:
        error = failure(call, server.url())
    assert error.reason == "tls"
    assert server.received == []


def test_tls_1_1_server_accepts_permissive_client(ca: trustme.CA) -> None:
    """Shows that the previous test tests the exporter, not the server."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    allow_only_old_tls(context)
    with (
        listening(tls=tls_1_1(ca)) as server,
        socket.create_connection(("localhost", server.port)) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as secured,
    ):
        assert secured.version() == "TLSv1.1"


@both
@pytest.mark.parametrize("variable", CA_VARIABLES)
def test_private_ca_of_environment_is_trusted(
    call: Call, variable: str, tedee: Server, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failure(call, tedee.url()).reason == "tls"
    monkeypatch.setenv(variable, str(ca_file))
    assert call(tedee.url())
    assert [KEY in each or REFRESH_TOKEN in each for each in tedee.received] == [True]


@pytest.mark.parametrize(("variable", "weaker"), [*pairwise(CA_VARIABLES)])
def test_first_ca_variable_takes_precedence(
    variable: str, weaker: str, tedee: Server, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, certifi.where())
    monkeypatch.setenv(weaker, str(ca_file))
    assert failure(sync, tedee.url()).reason == "tls"


def test_ca_certificates_are_loaded_once(tedee: Server, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []

    def load(context: ssl.SSLContext, cafile: str, capath: None) -> None:
        loaded.append(cafile)
        ssl.SSLContext.load_verify_locations(context, cafile, capath)

    monkeypatch.setattr(certificates._SharedContext, "load_verify_locations", load)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file))
    for call in (sync, refresh, sync):
        assert call(tedee.url())
    assert loaded == [str(ca_file)]


def test_changed_ca_certificates_are_loaded_again(
    tedee: Server, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file))
    content = ca_file.read_bytes()
    trustme.CA().cert_pem.write_to_path(str(ca_file))
    assert failure(sync, tedee.url()).reason == "tls"
    ca_file.write_bytes(content)
    assert sync(tedee.url())
    ca_file.write_bytes(b"")
    assert failure(sync, tedee.url()).reason == "tls"


def test_folder_of_ca_certificates_is_trusted(tedee: Server, ca_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file.parent))
    assert failure(sync, tedee.url()).reason == "tls"
    rename_to_hash(ca_file)
    assert sync(tedee.url())


def rename_to_hash(ca_file: Path) -> Path:
    """Rename a certificate, as `openssl rehash` does, because OpenSSL looks it up by the hash of its name."""
    command = ["openssl", "x509", "-noout", "-hash", "-in", str(ca_file)]
    name = subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    return ca_file.rename(ca_file.with_name(f"{name}.0"))


@both
def test_folders_of_ssl_cert_dir_are_trusted(
    call: Call, tedee: Server, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path / 'absent'}:{ca_file.parent}")
    error = failure(call, tedee.url())
    assert f"(trusted CA certificates: {ca_file.parent}, from SSL_CERT_DIR)" in str(error)
    rename_to_hash(ca_file)
    assert call(tedee.url())


def test_absent_folder_of_ssl_cert_dir_is_named(tedee: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "absent"))
    error = failure(sync, tedee.url())
    certificates = f"the CA certificates in {tmp_path / 'absent'}, from SSL_CERT_DIR,"
    assert f"{certificates} cannot be read: No such file or directory" in str(error)
    assert tedee.received == []


def test_empty_folder_names_are_ignored(
    tedee: Server, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`FOLDER:$SSL_CERT_DIR` without a value of the variable."""
    rename_to_hash(ca_file)
    monkeypatch.setenv("SSL_CERT_DIR", f":{ca_file.parent}:")
    assert sync(tedee.url())
    monkeypatch.setenv("SSL_CERT_DIR", ":")
    assert "SSL_CERT_DIR" not in str(failure(sync, tedee.url()))


def test_file_and_folder_of_environment_are_trusted_together(
    tedee: Server, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    monkeypatch.setenv("SSL_CERT_DIR", str(ca_file.parent))
    assert "from SSL_CERT_FILE and SSL_CERT_DIR)" in str(failure(sync, tedee.url()))
    rename_to_hash(ca_file)
    assert sync(tedee.url())


def use_system(monkeypatch: pytest.MonkeyPatch, file: Path, folder: Path) -> None:
    """Let these be the default file and folder of OpenSSL."""
    paths = ssl.get_default_verify_paths()._replace(openssl_cafile=str(file), openssl_capath=str(folder))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)


@both
def test_ca_in_folder_of_system_is_trusted(
    call: Call, tedee: Server, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_system(monkeypatch, tmp_path / "absent", ca_file.parent)
    # Without certificates that OpenSSL finds, the folder is not used.
    error = failure(call, tedee.url())
    assert f"(trusted CA certificates: {certifi.where()}, those of certifi, because the system has none)" in str(error)
    rename_to_hash(ca_file)
    assert call(tedee.url())


def test_ca_in_file_of_system_is_trusted(
    tedee: Server, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = ca_file.read_bytes()
    trustme.CA().cert_pem.write_to_path(str(ca_file))
    use_system(monkeypatch, ca_file, tmp_path / "absent")
    assert f"(trusted CA certificates: {ca_file}, those of the system)" in str(failure(sync, tedee.url()))
    ca_file.write_bytes(content)
    assert sync(tedee.url())


@pytest.mark.parametrize("variable", CA_VARIABLES)
def test_environment_takes_precedence_over_system(
    variable: str, tedee: Server, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_system(monkeypatch, ca_file, tmp_path / "absent")
    assert sync(tedee.url())
    monkeypatch.setenv(variable, certifi.where())
    assert f"{certifi.where()}, from {variable})" in str(failure(sync, tedee.url()))


def test_removed_ca_of_system_is_no_longer_trusted(
    tedee: Server, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_system(monkeypatch, tmp_path / "absent", ca_file.parent)
    (ca_file.parent / "0123abcd.0").write_text("the CA certificate of another name")
    renamed = rename_to_hash(ca_file)
    assert sync(tedee.url())
    renamed.unlink()
    assert failure(sync, tedee.url()).reason == "tls"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount file systems")
def test_program_trusts_the_certificates_of_the_system(tedee: Server, ca_file: Path) -> None:
    """The folder is mounted instead of the system's, which is what update-ca-certificates changes in an image."""
    folder = Path(ssl.get_default_verify_paths().openssl_capath).resolve()
    if not folder.is_dir():
        pytest.skip(f"the system has no folder {folder}")

    def returncode() -> int:
        mounted = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mounted, "sh", str(ca_file.parent), str(folder)]
        return subprocess.run(
            [*command, sys.executable, "-m", "exporter", "--sync.once"],
            env=environment(TEDEE_PERSONAL_KEY=KEY, TEDEE_API_URL=tedee.url()),
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        ).returncode

    assert returncode() == 1
    assert tedee.received == []
    rename_to_hash(ca_file)
    assert returncode() == 0


@both
@pytest.mark.parametrize("content", [None, "", "junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
def test_unreadable_ca_file_is_named_and_nothing_is_sent(
    call: Call, content: str | None, tedee: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(file))
    error = failure(call, tedee.url())
    assert error.reason == "tls"
    assert str(file) in str(error)
    assert tedee.received == []


def test_ca_certificates_in_fifo_do_not_block(tedee: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "fifo"))
    error = failure(sync, tedee.url())
    assert error.reason == "tls"
    assert "neither a regular file nor a folder" in str(error)


ENVIRONMENTS = [
    {"REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "", "PYTHONHTTPSVERIFY": "0", "SSL_CERT_FILE": "", "SSL_CERT_DIR": ""},
    {"REQUESTS_CA_BUNDLE": "False", "PYTHONHTTPSVERIFY": "0"},
    {"CURL_CA_BUNDLE": "0"},
]


@pytest.mark.parametrize("variables", ENVIRONMENTS, ids=["emptied", "False", "0"])
def test_environment_cannot_disable_verification(variables: dict[str, str], tedee: Server) -> None:
    done = sync_once(tedee.url(), **variables)
    assert done.returncode == 1
    assert "TLS failed" in done.stderr
    assert KEY not in done.stdout + done.stderr
    assert tedee.received == []


def test_untrusted_server_is_reported_in_metrics(tedee: Server) -> None:
    with running(TEDEE_PERSONAL_KEY=KEY, TEDEE_API_URL=tedee.url()) as exporter:
        exporter.wait_until_ready()
        assert exporter.value("tedee_sync_failures_total", account="default", reason="tls") == 1
        assert exporter.value("tedee_up", account="default") == 0
    assert tedee.received == []


def test_program_trusts_private_ca(tedee: Server, ca_file: Path) -> None:
    done = sync_once(tedee.url(), REQUESTS_CA_BUNDLE=str(ca_file))
    assert done.returncode == 0, done.stderr
    assert all(KEY in each for each in tedee.received)


def test_tls_session_keys_are_not_written(
    tedee: Server, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "session-keys"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(ca_file))
    assert sync(tedee.url())
    assert not (tmp_path / "session-keys").exists()


# Proxies


@pytest.fixture(params=["http", "https"])
def proxy(request: pytest.FixtureRequest, ca: trustme.CA) -> Iterator[Server]:
    tls = server_context(ca.issue_cert("localhost")) if request.param == "https" else None
    with listening(tls=tls) as server:
        yield server


def with_password(proxy: Server) -> str:
    return proxy.url(f"user:{PASSWORD}@localhost")


@both
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.usefixtures("trusted")
def test_proxy_sees_only_encrypted_data(
    call: Call, variable: str, proxy: Server, tedee: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, with_password(proxy))
    assert call(tedee.url("tedee.test"))
    (connect,) = proxy.received
    assert (connect.method, connect.target) == ("CONNECT", f"tedee.test:{tedee.port}")
    assert {name.lower() for name in connect.headers} <= {"host", "proxy-authorization"}
    assert tedee.received
    for secret in (KEY, CLIENT_SECRET, REFRESH_TOKEN):
        assert secret not in connect
        assert secret.encode() not in proxy.forwarded
    assert all("proxy-authorization" not in map(str.lower, each.headers) for each in tedee.received)


@both
@pytest.mark.usefixtures("trusted")
def test_proxy_connection_serves_one_call(
    call: Call, proxy: Server, tedee: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url())
    shared = session("tedee-exporter/test")
    monkeypatch.setattr("tests.security.test_outbound_connections.session", lambda _: shared)
    for _ in range(2):
        call(tedee.url("tedee.test"))
    assert [each.method for each in proxy.received] == ["CONNECT", "CONNECT"]


@both
@pytest.mark.usefixtures("trusted")
def test_no_proxy_variable_is_respected(
    call: Call, proxy: Server, tedee: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **options: resolve("127.0.0.1", *rest, **options))
    monkeypatch.setenv("HTTPS_PROXY", with_password(proxy))
    monkeypatch.setenv("NO_PROXY", "elsewhere.test,tedee.test")
    assert call(tedee.url("tedee.test"))
    assert proxy.received == []


@both
@pytest.mark.usefixtures("trusted")
def test_server_behind_proxy_is_verified(call: Call, proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url())
    with listening(tls=server_context(trustme.CA().issue_cert("tedee.test"))) as impostor:
        assert failure(call, impostor.url("tedee.test")).reason == "tls"
    assert impostor.received == []


@both
@pytest.mark.usefixtures("trusted")
def test_untrusted_proxy_does_not_receive_password(call: Call, tedee: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(tls=server_context(trustme.CA().issue_cert("localhost"))) as impostor:
        monkeypatch.setenv("HTTPS_PROXY", with_password(impostor))
        assert failure(call, tedee.url("tedee.test")).reason == "tls"
    assert impostor.received == tedee.received == []


PROXIES = [
    f"http://user:{PASSWORD}@127.0.0.1:1",
    f"https://user:{PASSWORD}@127.0.0.1:1",
    f"http://user:{PASSWORD}@proxy.invalid:3128",
    f"http://user:{PASSWORD}@proxy:99999",
    f"http://user:{PASSWORD}@proxy:port",
    f"http://user:{PASSWORD}@:3128",
    f"http://user:{PASSWORD}@",
    f"http://user:{PASSWORD}#1@proxy:3128",
    f"http://user:{PASSWORD}/1@proxy:3128",
    f"http://user:[{PASSWORD}@proxy:3128",
    f"http://user:{PASSWORD}@[::1:3128",
    f"http://user:{PASSWORD}@pro xy:3128",
    f"http://user:{PASSWORD}@{'p' * 70}:3128",
    f"user:{PASSWORD}@127.0.0.1:1",
    f"://user:{PASSWORD}@127.0.0.1:1",
    f"ftp://user:{PASSWORD}@127.0.0.1:1",
    f"socks5://user:{PASSWORD}@127.0.0.1:1",
    f"socks9://user:{PASSWORD}@127.0.0.1:1",
]


@both
@pytest.mark.parametrize("address", PROXIES)
def test_unreachable_proxy_error_hides_password(
    call: Call, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HTTPS_PROXY", address)
    error = failure(call, "https://tedee.test")
    assert error.reason == "connection"
    assert "proxy" in str(error)
    assert PASSWORD not in caplog.text


@both
def test_proxy_refusal_is_reported_by_status_only(call: Call, tedee: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def echo(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(f"HTTP/1.1 407 {PASSWORD} is wrong\r\n\r\n".encode())

    with tcp_server(echo) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@127.0.0.1:{port}")
        error = failure(call, tedee.url("tedee.test"))
    assert error.reason == "connection"
    assert "the proxy returned HTTP 407 Proxy Authentication Required" in str(error)
    assert tedee.received == []


def test_program_never_shows_proxy_password(tedee: Server) -> None:
    with listening(password="Basic of-another-user") as proxy:
        url = tedee.url("tedee.test")
        with running(
            "--log.level=debug", TEDEE_PERSONAL_KEY=KEY, TEDEE_API_URL=url, HTTPS_PROXY=with_password(proxy)
        ) as exporter:
            exporter.wait_until_ready()
            shown = [exporter.get(path).text for path in ("/", "/metrics", "/docs")]
            exporter.stop()
    output = "".join([*shown, *exporter.log])
    assert "the proxy returned HTTP 407" in output
    for secret in SECRETS:
        assert secret not in output
    assert proxy.received
    assert tedee.received == []


# Loopback


@both
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_plain_http_to_loopback_ignores_proxy(call: Call, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as server, listening() as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
            monkeypatch.setenv(name.lower(), proxy.url())
        assert call(server.url(host))
    assert len(server.received) == 1
    assert proxy.received == []


def test_program_uses_no_proxy_for_loopback() -> None:
    with listening() as server, listening() as proxy:
        url = proxy.url()
        done = sync_once(server.url("127.0.0.1"), HTTP_PROXY=url, http_proxy=url, ALL_PROXY=url)
    assert done.returncode == 0, done.stderr
    assert server.received
    assert proxy.received == []


@both
def test_loopback_calls_do_not_change_environment(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    changed: list[object] = []
    monkeypatch.setattr(os, "putenv", lambda *args: changed.append(args))
    with listening() as server, ThreadPoolExecutor(8) as pool:
        list(pool.map(call, [server.url("127.0.0.1")] * 16))
    assert changed == []


@both
def test_localhost_on_another_machine_receives_nothing(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but its own")
        address = probe.getsockname()[0]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **options: resolve(address, *rest, **options))
    reached: list[bytes] = []
    with tcp_server(lambda connection: reached.append(connection.recv(65536)), address) as port:
        error = failure(call, f"http://localhost:{port}")
    assert error.reason == "connection"
    assert "plain HTTP is allowed to this machine only" in str(error)
    assert b"".join(reached) == b""


LOOPBACK_URLS = [
    "http://127.0.0.1:8080",
    "http://127.8.9.10",
    "http://[::1]:8080",
    "http://localhost",
    "http://LOCALHOST:1/",
]
OTHER_URLS = [
    "http://127.0.0.1.evil.example",
    "http://localhost.evil.example",
    "http://localhost.",
    "http://evil.example/127.0.0.1",
    "http://127.0.0.1@evil.example",
    "http://127.0.0.1:80@evil.example",
    "http://evil.example#@127.0.0.1",
    "http://evil.example?@127.0.0.1",
    "http://evil.example\\@127.0.0.1",
    "http://127.0.0.1\\.evil.example",
    "http://127.0.0.1;.evil.example",
    "http://127.0.0.1%2eevil.example",
    "http://127.0.0.1%00.evil.example",
    "http://127.0.0.1\t.evil.example",
    "http://[::1]@evil.example",
    "http://[::ffff:192.0.2.1]",
    "http://[::]",
    "http://0.0.0.0",
    "http://0",
    "http://127.1",
    "http://0177.0.0.1",
    "http://0x7f000001",
    "http://2130706433",
    "http://\uff11\uff12\uff17.0.0.1",
    "http://127\u30020\u30020\u30021",
    "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
    "http://lоcalhost",  # noqa: RUF001  (that o is Cyrillic)
    "http:127.0.0.1",
    "http:///127.0.0.1",
    "//127.0.0.1",
    "HTTP://evil.example",
    "ws://127.0.0.1",
    f"https://user:{PASSWORD}@api.tedee.com",
]


def settings_with(url: str) -> list[Callable[[], object]]:
    """Return the settings with URLs to which secrets are sent."""
    files = {"client_id": "a-client", "refresh_token_file": "refresh-token"}
    return [
        lambda: Source({"url": url}).validated(Api),
        lambda: Source({"token_url": url, **files}).validated(OAuth),
    ]


@pytest.mark.parametrize("url", LOOPBACK_URLS)
def test_plain_http_to_loopback_is_allowed(url: str) -> None:
    for setting in settings_with(url):
        setting()


@pytest.mark.parametrize("url", OTHER_URLS)
def test_plain_http_to_similar_host_is_rejected(url: str) -> None:
    for setting in settings_with(url):
        with pytest.raises(ConfigurationError) as caught:
            setting()
        assert PASSWORD not in str(caught.value)


@both
@pytest.mark.parametrize("url", ["http://[::1].evil.example", "http://evil.example[::1]", "http://[::1]evil.example"])
def test_ambiguous_loopback_address_is_not_called(call: Call, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []

    def look_up(host: str, *rest: object, **options: object) -> list[object]:
        looked_up.append(host)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with contextlib.suppress(ValueError):
        assert failure(call, url).reason == "connection"
    assert looked_up == []


# netrc and cookies


@both
@pytest.mark.usefixtures("trusted")
def test_netrc_is_used_for_neither_tedee_nor_proxy(
    call: Call, proxy: Server, tedee: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text(
        "machine tedee.test login user password other\nmachine localhost login user password other\n"
    )
    monkeypatch.setenv("HTTPS_PROXY", proxy.url())
    call(tedee.url("tedee.test"))
    (request,) = tedee.received
    assert request.headers.get("Authorization") == (f"PersonalKey {KEY}" if call is sync else None)
    assert all("Basic" not in str(each.headers) for each in proxy.received)


def test_program_does_not_use_netrc(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("default login user password other\n")
    with listening() as server:
        sync_once(server.url("127.0.0.1"), HOME=str(tmp_path), NETRC=str(tmp_path / ".netrc"))
    assert {each.headers["Authorization"] for each in server.received} == {f"PersonalKey {KEY}"}


def test_cookies_are_not_sent_back() -> None:
    with listening(Reply(headers={"Set-Cookie": "session=home; Path=/"})) as server:
        api, endpoint = client(server.url("127.0.0.1")), token_endpoint(server.url("127.0.0.1"))
        for _ in range(2):
            api.sync()
            endpoint.refresh(Secret(REFRESH_TOKEN), "its file", lambda _: None)
    assert len(server.received) == 4
    assert all("Cookie" not in each.headers for each in server.received)


# Redirects


@both
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["another host", "another scheme", "the same host"])
@pytest.mark.usefixtures("trusted")
def test_redirect_is_not_followed(call: Call, target: str, status: int, tedee: Server) -> None:
    with listening() as other_server:
        tedee.reply = Reply(status)
        targets = {
            "another host": other_server.url("127.0.0.1"),
            "another scheme": f"http://localhost:{other_server.port}",
            "the same host": tedee.url(),
        }
        tedee.reply = Reply(status, {"Location": f"{targets[target]}/api/v37/my/lock/sync"})
        error = failure(call, tedee.url())
    assert error.reason == "invalid_response"
    assert "redirects are not followed" in str(error)
    assert len(tedee.received) == 1
    assert other_server.received == []


@both
def test_location_headers_of_success_are_ignored(call: Call) -> None:
    with listening() as other_server:
        url = other_server.url("127.0.0.1")
        with listening(Reply(headers={"Location": url, "Refresh": f"0; url={url}", "Link": f"<{url}>"})) as server:
            assert call(server.url("127.0.0.1"))
    assert other_server.received == []


@both
@pytest.mark.parametrize(
    "location", ["", "//", "http://[", "http://host:99999/", "http://a b", "mailto:a", "\x80\xff", "x" * 60_000]
)
def test_redirect_to_invalid_location_is_reported(call: Call, location: str) -> None:
    with listening(Reply(302, {"Location": location})) as server:
        assert "redirects are not followed" in str(failure(call, server.url("127.0.0.1")))


# Size

BLANKS = 300_000_000
ENCODINGS = {
    "gzip": "gzip",
    "deflate": "deflate",
    "gzip in gzip": "gzip, gzip",
    "gzip in gzip in gzip": "gzip, gzip, gzip",
    "gzip 1,000 times": "gzip" + ", gzip" * 999,
}


@cache
def bomb_of(encoding: str) -> bytes:
    """Return a body with that encoding. One of 1,000 encodings is refused, so its body is encoded once."""
    if encoding == "deflate":
        return zlib.compress(b" " * BLANKS)
    _, _, outer = encoding.partition(", ")
    return gzip.compress(bomb_of(outer) if outer and encoding.count(",") < 3 else b" " * BLANKS)


@both
@pytest.mark.parametrize("status", [200, 302, 401, 503])
@pytest.mark.parametrize("encoding", ENCODINGS.values(), ids=ENCODINGS)
def test_compression_bomb_does_not_fill_memory(call: Call, encoding: str, status: int) -> None:
    headers = {"Content-Encoding": encoding, "Location": "http://127.0.0.1:1/"}
    with listening(Reply(status, headers, bomb_of(encoding))) as server:
        tracemalloc.start()
        try:
            failure(call, server.url("127.0.0.1"), 60)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 3 * MAX_BODY_BYTES


def flood_server(begin: bytes, repeated: bytes) -> tuple[Callable[[socket.socket], None], list[int]]:
    """Return a server function that never stops sending, as fast as it can, and a counter of the bytes sent."""
    sent = [0]

    def respond(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(begin)
        while True:
            connection.sendall(repeated)
            sent[0] += len(repeated)

    return respond, sent


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ENDLESS_RESPONSES: dict[str, tuple[bytes, bytes]] = {
    "a body without Content-Length": (OK + b"\r\n", b" " * 65536),
    "a body with a huge Content-Length": (OK + b"Content-Length: 99999999999999\r\n\r\n", b" " * 65536),
    "a body with two Content-Lengths": (OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n", b" " * 65536),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "a chunk's size": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 65536),
    "a redirect's body": (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", b" " * 65536),
    "a status line": (b"HTTP/1.1 200 ", b"O" * 65536),
    "a header": (OK + b"X-Long: ", b"x" * 65536),
    "headers": (OK, b"X-More: headers\r\n" * 1000),
}


@both
@pytest.mark.parametrize("response", ENDLESS_RESPONSES)
def test_endless_fast_response_is_aborted(call: Call, response: str) -> None:
    respond, sent = flood_server(*ENDLESS_RESPONSES[response])
    with tcp_server(respond) as port:
        failure(call, f"http://127.0.0.1:{port}", 60)
    # The count includes the buffers of the kernel.
    assert sent[0] < 4 * MAX_BODY_BYTES


# Time

HANDSHAKE = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03"
"""Beginning of the server's part of a TLS handshake of 16 kB."""


def slow_server(begin: bytes, drop: bytes, tls: ssl.SSLContext | None = None) -> Callable[[socket.socket], None]:
    """Return a server function that sends a few bytes at a time, for minutes."""

    def respond(connection: socket.socket) -> None:
        with tls.wrap_socket(connection, server_side=True) if tls else nullcontext(connection) as speaker:
            speaker.recv(65536)
            speaker.sendall(begin)
            for _ in range(3_000):
                time.sleep(0.05)
                speaker.sendall(drop)

    return respond


def times_out(call: Call, url: str) -> bool:
    began = time.monotonic()
    error = failure(call, url, 0.5)
    return error.reason == "timeout" and time.monotonic() - began < MAX_DURATION


SLOW_RESPONSES: dict[str, tuple[bytes, bytes]] = {
    "a status line": (b"HTTP/1.1 200 ", b"O"),
    "headers": (OK, b"X-More: headers\r\n"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a body": (OK + b"Content-Length: 1000000\r\n\r\n", b" "),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    "a redirect's body": (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 1000000\r\n\r\n", b" "),
}


@both
@pytest.mark.parametrize("response", SLOW_RESPONSES)
@pytest.mark.usefixtures("trusted")
def test_slow_response_through_tls_and_proxy_times_out(
    call: Call, response: str, proxy: Server, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url())
    with tcp_server(slow_server(*SLOW_RESPONSES[response], server_context(ca.issue_cert("tedee.test")))) as port:
        # A redirect of the token endpoint is reported before its body is received.
        assert times_out(call, f"https://tedee.test:{port}") or (call is refresh and "redirect" in response)


@both
@shut_down_early
def test_slow_tls_handshake_times_out(call: Call) -> None:
    with tcp_server(slow_server(HANDSHAKE, b"a")) as port:
        assert times_out(call, f"https://localhost:{port}")


@both
@pytest.mark.usefixtures("trusted")
@shut_down_early
def test_slow_tls_handshake_through_proxy_times_out(call: Call, proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url())
    with tcp_server(slow_server(HANDSHAKE, b"a")) as port:
        assert times_out(call, f"https://tedee.test:{port}")


@both
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("response", ["a status line", "headers"])
@pytest.mark.usefixtures("trusted")
def test_slow_response_of_proxy_times_out(
    call: Call, response: str, scheme: str, ca: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = server_context(ca.issue_cert("localhost")) if scheme == "https" else None
    with tcp_server(slow_server(*SLOW_RESPONSES[response], tls)) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://localhost:{port}")
        assert times_out(call, "https://tedee.test")


@both
def test_endless_interim_responses_time_out(call: Call) -> None:
    respond, _ = flood_server(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
    with tcp_server(respond) as port:
        assert times_out(call, f"http://127.0.0.1:{port}")


@both
@pytest.mark.parametrize("header", [b"Set-Cookie", b"Set-Cookie2"])
def test_slow_to_parse_headers_are_not_parsed(call: Call, header: bytes) -> None:
    """The standard library takes a minute to parse these."""

    def respond(connection: socket.socket) -> None:
        connection.recv(65536)
        cookies = [b"Set-Cookie: a=b\r\n", *[header + b": " + b"a;" * 32_000 + b"\r\n"] * 90]
        connection.sendall(b"HTTP/1.1 500 Oh\r\n" + b"".join(cookies) + b"Content-Length: 0\r\n\r\n")

    with tcp_server(respond) as port:
        began = time.monotonic()
        assert failure(call, f"http://127.0.0.1:{port}", 60).reason == "server"
        assert time.monotonic() - began < MAX_DURATION


# Arbitrary responses

PARTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.0 302 Found",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols",
        b"HTTP/9.9 -1 ",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"Content-Length: ",
        b"Content-Length: -1\r\n",
        b"Content-Length: 2, 3\r\n",
        b"Content-Type: application/json; charset=\xff\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Content-Encoding: br, zstd, deflate\r\n",
        b"Location: http://[\r\n",
        b"Location: //\xff:99999\r\n",
        b"Set-Cookie: a=b; expires=\xff; max-age=x\r\n",
        b"Retry-After: Fri, 99 Sep 99999 25:61:61 GMT\r\n",
        b"API-Supported-Versions: ,,\xe4\r\n",
        b" folded\r\n",
        b": nameless\r\n",
        b"5\r\nhello\r\n",
        b"-5\r\n",
        b"fffffffffffffffff\r\n",
        b"0\r\n\r\n",
        b'{"result": [], "success": true}',
        gzip.compress(b"{}")[:-3],
    ]
)


@settings(max_examples=200)
@given(data=st.lists(PARTS | st.binary(max_size=8), max_size=12).map(b"".join))
def test_arbitrary_bytes_give_response_or_named_error(data: bytes) -> None:
    def respond(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(data)

    with tcp_server(respond) as port:
        for call in (sync, refresh):
            outcome(call, f"http://127.0.0.1:{port}", 2.0)
