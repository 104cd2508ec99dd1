"""TLS: versions, cipher suites, client certificates and reloads."""

import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import requests
import trustme

from exporter.web.configuration_file import load_web_configuration
from exporter.web.tls import CIPHER_SUITES
from testing.program import TIMEOUT, eventually, running
from tests.security.serving import LIMITS, Server, serving
from tests.security.web_files import HASH, PAIR, PASSWORD, WebFiles

CLIENTS = {**PAIR, "client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}


@contextlib.contextmanager
def secured(web: WebFiles, **tls: Any) -> Iterator[Server]:
    limits = replace(LIMITS, request_seconds=TIMEOUT)  # a handshake is slow on a busy machine
    with serving(
        limits, load_web_configuration(web.write(tls_server_config={**PAIR, **tls})).security_policy
    ) as server:
        yield server


def scrape(server: Server, web: WebFiles, **options: Any) -> requests.Response:
    url = f"https://localhost:{server.address[1]}/metrics"
    return requests.get(url, verify=str(web.folder / "ca.pem"), timeout=TIMEOUT, **options)


def is_rejected(server: Server, web: WebFiles, **options: Any) -> bool:
    try:
        scrape(server, web, **options)
    except requests.ConnectionError:
        return True
    return False


def connect(server: Server, web: WebFiles, **settings: Any) -> tuple[str | None, str, bytes | None]:
    """Connect with these settings of the client; return version, cipher suite and the server's certificate."""
    context = ssl.create_default_context(cafile=str(web.folder / "ca.pem"))
    ciphers = settings.pop("ciphers", None)
    if ciphers:
        context.set_ciphers(ciphers)
    for name, value in settings.items():
        setattr(context, name, value)
    with server.open() as plain, context.wrap_socket(plain, server_hostname="localhost") as client:
        cipher = client.cipher()
        assert cipher
        return client.version(), cipher[0], client.getpeercert(binary_form=True)


def test_scrape_over_tls_returns_metrics(web: WebFiles) -> None:
    with secured(web) as server:
        response = scrape(server, web)
        assert response.ok
        assert 'lock_state{account="home",lock_id="2999"' in response.text


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE", b"get", b"CONNECT"])
def test_plain_http_on_tls_port_is_explained(web: WebFiles, method: bytes) -> None:
    with secured(web) as server:
        response = server.exchange(method + b" /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert response.startswith(b"HTTP/1.0 400 Bad Request\r\n")
        assert response.endswith(b"\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
        assert scrape(server, web).ok


# Clients' certificates


def test_client_without_certificate_of_ca_is_rejected(web: WebFiles) -> None:
    with secured(web, **CLIENTS) as server:
        assert is_rejected(server, web)
        assert is_rejected(server, web, cert=str(web.client("prometheus.example", ca=trustme.CA())))
        assert scrape(server, web, cert=str(web.client("prometheus.example"))).ok


def test_optional_client_certificate_is_verified(web: WebFiles) -> None:
    with secured(web, **{**CLIENTS, "client_auth_type": "VerifyClientCertIfGiven"}) as server:
        assert scrape(server, web).ok
        assert is_rejected(server, web, cert=str(web.client("prometheus.example", ca=trustme.CA())))


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("prometheus.example", ["other.example", "prometheus.example"]),
        ("192.0.2.7", ["192.0.2.7"]),
        ("2001:db8::1", ["2001:db8::1"]),
        ("ops@example.org", ["ops@example.org"]),
    ],
)
def test_client_with_an_allowed_name_is_accepted(web: WebFiles, name: str, allowed: list[str]) -> None:
    with secured(web, **CLIENTS, client_allowed_sans=allowed) as server:
        assert scrape(server, web, cert=str(web.client(name))).ok


@pytest.mark.parametrize("name", ["prometheus.example.org", "a.prometheus.example", "*.example", "192.0.2.7"])
def test_client_with_similar_name_is_rejected(web: WebFiles, name: str) -> None:
    with secured(web, **CLIENTS, client_allowed_sans=["prometheus.example"]) as server:
        assert is_rejected(server, web, cert=str(web.client(name)))


def test_intermediate_ca_is_trusted_without_root(web: WebFiles) -> None:
    intermediate = web.ca.create_child_ca()
    intermediate.cert_pem.write_to_path(str(web.folder / "intermediate.pem"))
    with secured(web, **{**CLIENTS, "client_ca_file": "intermediate.pem"}) as server:
        assert scrape(server, web, cert=str(web.client("prometheus.example", ca=intermediate))).ok
        assert is_rejected(server, web, cert=str(web.client("other.example")))


# Versions and suites


@pytest.mark.parametrize(("minimum", "maximum", "used"), [("TLS12", "TLS13", "TLSv1.3"), ("TLS12", "TLS12", "TLSv1.2")])
def test_highest_common_version_is_used(web: WebFiles, minimum: str, maximum: str, used: str) -> None:
    with secured(web, min_version=minimum, max_version=maximum) as server:
        assert connect(server, web)[0] == used


def test_client_below_min_version_is_rejected(web: WebFiles) -> None:
    with secured(web, min_version="TLS13") as server, pytest.raises((ssl.SSLError, ConnectionError)):
        connect(server, web, maximum_version=ssl.TLSVersion.TLSv1_2)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
def test_deprecated_versions_are_never_used(web: WebFiles) -> None:
    with secured(web, min_version="TLS10") as server, pytest.raises((ssl.SSLError, ConnectionError)):
        connect(
            server,
            web,
            minimum_version=ssl.TLSVersion.TLSv1,
            maximum_version=ssl.TLSVersion.TLSv1_1,
            ciphers="ALL:@SECLEVEL=0",
        )


def test_only_configured_cipher_suites_are_used(web: WebFiles) -> None:
    # trustme's certificates have elliptic-curve keys.
    suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    with secured(web, cipher_suites=[suite], max_version="TLS12") as server:
        assert connect(server, web)[1] == CIPHER_SUITES[suite]
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(server, web, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")


def test_configured_suite_order_takes_precedence(web: WebFiles) -> None:
    suites = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]
    clients = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    for own, first in ((True, suites[0]), (False, suites[1])):
        with secured(web, cipher_suites=suites, max_version="TLS12", prefer_server_cipher_suites=own) as server:
            assert connect(server, web, ciphers=clients)[1] == CIPHER_SUITES[first]


# Reloads


def test_new_certificate_closes_old_connections(web: WebFiles) -> None:
    with secured(web) as server, requests.Session() as session:
        trusted, url = str(web.folder / "ca.pem"), f"https://localhost:{server.address[1]}/-/healthy"
        assert session.get(url, verify=trusted, timeout=TIMEOUT).ok
        before = connect(server, web)[2]
        web.issue()
        server.policy = load_web_configuration(web.file).security_policy
        eventually(lambda: server.count() == 0, "the old connection to be closed")
        assert connect(server, web)[2] != before


def test_client_removed_from_list_gets_no_response(web: WebFiles) -> None:
    limits = replace(LIMITS, response_seconds=TIMEOUT, sweep_seconds=TIMEOUT)
    allowed = load_web_configuration(
        web.write(tls_server_config={**CLIENTS, "client_allowed_sans": ["prometheus.example"]})
    ).security_policy
    with serving(limits, allowed) as server, requests.Session() as session:
        options = {"verify": str(web.folder / "ca.pem"), "cert": str(web.client("prometheus.example"))}
        url = f"https://localhost:{server.address[1]}/metrics"
        assert session.get(url, timeout=TIMEOUT, **options).ok  # type: ignore[arg-type]
        web.write(tls_server_config={**CLIENTS, "client_allowed_sans": ["other.example"]})
        server.policy = load_web_configuration(web.file).security_policy
        for _ in range(2):
            with pytest.raises(requests.ConnectionError):
                session.get(url, timeout=TIMEOUT, **options)  # type: ignore[arg-type]


def test_exporter_reloads_certificates_and_users(web: WebFiles) -> None:
    file = web.write(tls_server_config=PAIR, basic_auth_users={"alice": HASH})
    with running("--demo", f"--web.config.file={file}") as exporter:
        url = f"https://localhost:{exporter.port}/metrics"

        def status(user: str, ca: str) -> int | None:
            with contextlib.suppress(requests.exceptions.SSLError):
                response = requests.get(url, verify=str(web.folder / ca), auth=(user, PASSWORD), timeout=TIMEOUT)
                return response.status_code
            return None

        assert status("alice", "ca.pem") == 200
        assert status("bob", "ca.pem") == 401
        other = trustme.CA()
        web.put("other.pem", other.cert_pem.bytes())
        web.issue(other)
        web.write(tls_server_config=PAIR, basic_auth_users={"bob": HASH})
        eventually(lambda: status("bob", "other.pem") == 200, "the change to be loaded")
        assert status("alice", "other.pem") == 401
        assert status("bob", "ca.pem") is None

        web.put("cert.pem", b"nonsense")
        eventually(lambda: "the previous one stays in use" in "".join(exporter.log), "the error to be logged")
        assert status("bob", "other.pem") == 200

        def is_reported() -> bool:
            metrics = requests.get(
                url, verify=str(web.folder / "other.pem"), auth=("bob", PASSWORD), timeout=TIMEOUT
            ).text
            return "tedee_exporter_config_last_reload_successful 0.0" in metrics

        eventually(is_reported, "the metric to report the error")
        exporter.stop()
        assert "".join(exporter.log).count("the previous one stays in use") == 1, "logged once"


def test_tls_can_be_enabled_at_runtime(web: WebFiles) -> None:
    file = web.write()
    with running("--demo", f"--web.config.file={file}") as exporter:
        assert exporter.get("/-/healthy").ok
        web.write(tls_server_config=PAIR)

        def is_enabled() -> bool:
            with contextlib.suppress(requests.exceptions.SSLError):
                url = f"https://localhost:{exporter.port}/-/healthy"
                return requests.get(url, verify=str(web.folder / "ca.pem"), timeout=TIMEOUT).ok
            return False

        eventually(is_enabled, "TLS")
        assert exporter.get("/-/healthy").status_code == 400
