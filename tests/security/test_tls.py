"""Lost if these fail: a scrape that nobody else reads, from those alone who were named, with today's certificate."""

import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import requests
import trustme

from exporter.web.configuration import load
from exporter.web.tls import CIPHER_SUITES
from tests.program import PATIENCE, eventually, running
from tests.security.serving import LIMITS, Server, serving
from tests.security.web_files import HASH, PAIR, PASSWORD, WebFiles

CLIENTS = {**PAIR, "client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}


@contextlib.contextmanager
def secured(web: WebFiles, **tls: Any) -> Iterator[Server]:
    patient = replace(LIMITS, request_seconds=PATIENCE)  # a handshake on a busy machine takes its time
    with serving(patient, load(web.write(tls_server_config={**PAIR, **tls})).policy) as server:
        yield server


def scrape(server: Server, web: WebFiles, **options: Any) -> requests.Response:
    url = f"https://localhost:{server.address[1]}/metrics"
    return requests.get(url, verify=str(web.folder / "ca.pem"), timeout=PATIENCE, **options)


def refused(server: Server, web: WebFiles, **options: Any) -> bool:
    try:
        scrape(server, web, **options)
    except requests.ConnectionError:
        return True
    return False


def connect(server: Server, web: WebFiles, **settings: Any) -> tuple[str | None, str, bytes | None]:
    """Version, cipher suite and certificate of a TLS connection made with these settings of the client."""
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


def test_a_scrape_over_tls_brings_what_one_without_it_does(web: WebFiles) -> None:
    with secured(web) as server:
        answer = scrape(server, web)
        assert answer.ok
        assert 'lock_state{account="home",lock_id="2999"' in answer.text


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE", b"get", b"CONNECT"])
def test_plain_request_on_the_tls_port_is_named(web: WebFiles, method: bytes) -> None:
    with secured(web) as server:
        response = server.exchange(method + b" /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert response.startswith(b"HTTP/1.0 400 Bad Request\r\n")
        assert response.endswith(b"\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
        assert scrape(server, web).ok


# Clients' certificates


def test_a_client_without_a_certificate_of_the_ca_is_refused(web: WebFiles) -> None:
    with secured(web, **CLIENTS) as server:
        assert refused(server, web)
        assert refused(server, web, cert=str(web.client("prometheus.example", ca=trustme.CA())))
        assert scrape(server, web, cert=str(web.client("prometheus.example"))).ok


def test_a_certificate_that_is_only_welcome_is_verified_if_it_comes(web: WebFiles) -> None:
    with secured(web, **{**CLIENTS, "client_auth_type": "VerifyClientCertIfGiven"}) as server:
        assert scrape(server, web).ok
        assert refused(server, web, cert=str(web.client("prometheus.example", ca=trustme.CA())))


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("prometheus.example", ["other.example", "prometheus.example"]),
        ("192.0.2.7", ["192.0.2.7"]),
        ("2001:db8::1", ["2001:db8::1"]),
        ("ops@example.org", ["ops@example.org"]),
    ],
)
def test_one_of_the_names_that_are_allowed_is_enough(web: WebFiles, name: str, allowed: list[str]) -> None:
    with secured(web, **CLIENTS, client_allowed_sans=allowed) as server:
        assert scrape(server, web, cert=str(web.client(name))).ok


@pytest.mark.parametrize("name", ["prometheus.example.org", "a.prometheus.example", "*.example", "192.0.2.7"])
def test_a_name_that_is_not_exactly_allowed_is_refused(web: WebFiles, name: str) -> None:
    with secured(web, **CLIENTS, client_allowed_sans=["prometheus.example"]) as server:
        assert refused(server, web, cert=str(web.client(name)))


def test_an_intermediate_ca_can_be_trusted_by_itself(web: WebFiles) -> None:
    intermediate = web.ca.create_child_ca()
    intermediate.cert_pem.write_to_path(str(web.folder / "intermediate.pem"))
    with secured(web, **{**CLIENTS, "client_ca_file": "intermediate.pem"}) as server:
        assert scrape(server, web, cert=str(web.client("prometheus.example", ca=intermediate))).ok
        assert refused(server, web, cert=str(web.client("other.example")))


# Versions and suites


@pytest.mark.parametrize(
    ("least", "greatest", "spoken"), [("TLS12", "TLS13", "TLSv1.3"), ("TLS12", "TLS12", "TLSv1.2")]
)
def test_the_best_version_both_sides_have_is_spoken(web: WebFiles, least: str, greatest: str, spoken: str) -> None:
    with secured(web, min_version=least, max_version=greatest) as server:
        assert connect(server, web)[0] == spoken


def test_a_client_that_is_too_old_is_refused(web: WebFiles) -> None:
    with secured(web, min_version="TLS13") as server, pytest.raises((ssl.SSLError, ConnectionError)):
        connect(server, web, maximum_version=ssl.TLSVersion.TLSv1_2)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
def test_what_is_broken_is_not_spoken_even_where_the_file_asks_for_it(web: WebFiles) -> None:
    with secured(web, min_version="TLS10") as server, pytest.raises((ssl.SSLError, ConnectionError)):
        connect(
            server,
            web,
            minimum_version=ssl.TLSVersion.TLSv1,
            maximum_version=ssl.TLSVersion.TLSv1_1,
            ciphers="ALL:@SECLEVEL=0",
        )


def test_only_the_cipher_suites_of_the_file_are_spoken(web: WebFiles) -> None:
    # trustme's certificates have keys on elliptic curves.
    suite = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
    with secured(web, cipher_suites=[suite], max_version="TLS12") as server:
        assert connect(server, web)[1] == CIPHER_SUITES[suite]
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(server, web, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")


def test_the_first_suite_of_the_file_is_taken_whatever_the_client_prefers(web: WebFiles) -> None:
    suites = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]
    clients = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    for own, first in ((True, suites[0]), (False, suites[1])):
        with secured(web, cipher_suites=suites, max_version="TLS12", prefer_server_cipher_suites=own) as server:
            assert connect(server, web, ciphers=clients)[1] == CIPHER_SUITES[first]


# Changes while it runs


def test_a_new_certificate_holds_from_the_next_connection_and_old_connections_end(web: WebFiles) -> None:
    with secured(web) as server, requests.Session() as session:
        trusted, url = str(web.folder / "ca.pem"), f"https://localhost:{server.address[1]}/-/healthy"
        assert session.get(url, verify=trusted, timeout=PATIENCE).ok
        before = connect(server, web)[2]
        web.issue()
        server.policy = load(web.file).policy
        eventually(lambda: server.count() == 0, "the old connection's end")
        assert connect(server, web)[2] != before


def test_a_client_whose_name_was_taken_off_the_list_gets_no_answer_any_more(web: WebFiles) -> None:
    patient = replace(LIMITS, answer_seconds=PATIENCE, sweep_seconds=PATIENCE)
    allowed = load(web.write(tls_server_config={**CLIENTS, "client_allowed_sans": ["prometheus.example"]})).policy
    with serving(patient, allowed) as server, requests.Session() as session:
        options = {"verify": str(web.folder / "ca.pem"), "cert": str(web.client("prometheus.example"))}
        url = f"https://localhost:{server.address[1]}/metrics"
        assert session.get(url, timeout=PATIENCE, **options).ok  # type: ignore[arg-type]
        web.write(tls_server_config={**CLIENTS, "client_allowed_sans": ["other.example"]})
        server.policy = load(web.file).policy
        for _ in range(2):
            with pytest.raises(requests.ConnectionError):
                session.get(url, timeout=PATIENCE, **options)  # type: ignore[arg-type]


def test_the_program_takes_up_certificates_and_users_without_being_asked(web: WebFiles) -> None:
    file = web.write(tls_server_config=PAIR, basic_auth_users={"alice": HASH})
    with running("--demo", f"--web.config.file={file}") as exporter:
        url = f"https://localhost:{exporter.port}/metrics"

        def status(user: str, ca: str) -> int | None:
            with contextlib.suppress(requests.exceptions.SSLError):
                answer = requests.get(url, verify=str(web.folder / ca), auth=(user, PASSWORD), timeout=PATIENCE)
                return answer.status_code
            return None

        assert status("alice", "ca.pem") == 200
        assert status("bob", "ca.pem") == 401
        other = trustme.CA()
        web.put("other.pem", other.cert_pem.bytes())
        web.issue(other)
        web.write(tls_server_config=PAIR, basic_auth_users={"bob": HASH})
        eventually(lambda: status("bob", "other.pem") == 200, "the change to be taken up")
        assert status("alice", "other.pem") == 401
        assert status("bob", "ca.pem") is None

        web.put("cert.pem", b"nonsense")
        eventually(lambda: "the previous one stays in use" in "".join(exporter.log), "the broken file to be told")
        assert status("bob", "other.pem") == 200

        def told() -> bool:
            metrics = requests.get(
                url, verify=str(web.folder / "other.pem"), auth=("bob", PASSWORD), timeout=PATIENCE
            ).text
            return "tedee_exporter_config_last_reload_successful 0.0" in metrics

        eventually(told, "the metric to tell it")
        exporter.stop()
        assert "".join(exporter.log).count("the previous one stays in use") == 1, "told once"


def test_tls_can_be_switched_on_while_it_runs(web: WebFiles) -> None:
    file = web.write()
    with running("--demo", f"--web.config.file={file}") as exporter:
        assert exporter.get("/-/healthy").ok
        web.write(tls_server_config=PAIR)

        def spoken() -> bool:
            with contextlib.suppress(requests.exceptions.SSLError):
                url = f"https://localhost:{exporter.port}/-/healthy"
                return requests.get(url, verify=str(web.folder / "ca.pem"), timeout=PATIENCE).ok
            return False

        eventually(spoken, "TLS")
        assert exporter.get("/-/healthy").status_code == 400
