"""Lost if these fail: an answer only to those who may have one, and no way around the gate."""

import base64
from concurrent.futures import Future

import pytest
from starlette.testclient import TestClient

from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.secrets import Secret
from exporter.web.app import create_app
from exporter.web.configuration import RateLimit, SecurityPolicy
from tests.clock import FakeClock
from tests.factories import registry, status
from tests.security.web_files import HASH, PASSWORD

ALICE = {"Authorization": "Basic " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode()}
PATHS = ["/", "/metrics", "/docs", "/nowhere", "/-/reload"]


def at_most(burst: int, interval: str) -> RateLimit:
    return RateLimit.model_validate({"interval": interval, "burst": burst})


class Browse:
    """The application behind its gate."""

    def __init__(self, clock: FakeClock) -> None:
        self.policy = SecurityPolicy()
        self.reloads = 0
        everything = registry(status(clock))
        exposition = Exposition(everything, ExporterCollector("1.2.3", lambda: (True, 0.0), lambda: True), clock)
        app = create_app(
            everything, exposition, clock, version="1.2.3", reload=self._reload, security_policy=lambda: self.policy
        )
        self.client = TestClient(app)

    def _reload(self) -> Future[list[str]]:
        self.reloads += 1
        reloaded: Future[list[str]] = Future()
        reloaded.set_result([])
        return reloaded


@pytest.fixture
def browse(clock: FakeClock) -> Browse:
    return Browse(clock)


# Passwords


@pytest.mark.parametrize("path", PATHS)
def test_without_the_password_there_is_nothing_to_see(browse: Browse, path: str) -> None:
    browse.policy = SecurityPolicy(users={"alice": Secret(HASH)})
    for headers in ({}, {"Authorization": "Basic bm90Om1l"}):
        answer = browse.client.request("POST" if "reload" in path else "GET", path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Basic realm="tedee-exporter", charset="UTF-8"'
        assert answer.text == "Unauthorized\n"
    assert browse.reloads == 0


def test_with_the_password_everything_is_as_ever(browse: Browse) -> None:
    browse.policy = SecurityPolicy(users={"alice": Secret(HASH)})
    assert "lock_state{" in browse.client.get("/metrics", headers=ALICE).text
    assert browse.client.post("/-/reload", headers=ALICE).text == "reloaded\n"


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_probes_need_no_password_and_are_not_counted(browse: Browse, path: str) -> None:
    browse.policy = SecurityPolicy(users={"alice": Secret(HASH)}, rate_limit=at_most(1, "60s"))
    for _ in range(3):
        answer = browse.client.get(path)
        assert answer.status_code == 200
        assert "lock" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/-/healthy/",
        "/-/healthy/../../metrics",
        "//-/healthy",
        "/-/healthy%2f..%2f..%2fmetrics",
        "/-/Healthy",
        "/-/healthy%00",
        "/-/healthy;/metrics",
        "/metrics?/-/healthy",
        "/metrics#/-/healthy",
        "/%2e%2e/metrics",
        "/./metrics",
        "//metrics",
    ],
)
def test_no_path_leads_around_the_gate(browse: Browse, path: str) -> None:
    browse.policy = SecurityPolicy(users={"alice": Secret(HASH)})
    assert browse.client.get(path).status_code == 401


def test_a_change_of_users_holds_from_the_next_request(browse: Browse) -> None:
    browse.policy = SecurityPolicy(users={"alice": Secret(HASH)})
    assert browse.client.get("/metrics", headers=ALICE).status_code == 200
    browse.policy = SecurityPolicy(users={"bob": Secret(HASH)})
    assert browse.client.get("/metrics", headers=ALICE).status_code == 401


# The rate limit


def test_a_burst_is_answered_and_then_one_request_in_each_interval(browse: Browse, clock: FakeClock) -> None:
    browse.policy = SecurityPolicy(rate_limit=at_most(3, "2.5s"))

    def ask() -> int:
        return browse.client.get("/metrics").status_code

    assert [ask() for _ in range(5)] == [200, 200, 200, 429, 429]
    clock.advance(2.5)
    assert [ask() for _ in range(2)] == [200, 429]
    clock.advance(60)
    assert [ask() for _ in range(4)] == [200, 200, 200, 429]


def test_who_is_too_fast_is_told_when_to_come_back(browse: Browse) -> None:
    browse.policy = SecurityPolicy(rate_limit=at_most(1, "2.5s"))
    browse.client.get("/")
    answer = browse.client.get("/")
    assert answer.headers["retry-after"] == "3"
    assert "rate_limit" in answer.text


def test_guessing_a_password_counts_too(browse: Browse) -> None:
    browse.policy = SecurityPolicy(users={"alice": Secret(HASH)}, rate_limit=at_most(2, "60s"))
    assert [browse.client.get("/").status_code for _ in range(3)] == [401, 401, 429]


# Headers


@pytest.mark.parametrize("path", ["/", "/metrics", "/docs", "/nowhere", "/-/healthy"])
def test_no_answer_is_taken_for_what_it_is_not(browse: Browse, path: str) -> None:
    assert browse.client.get(path).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_run_no_script_and_stand_in_no_frame(browse: Browse, path: str) -> None:
    headers = browse.client.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert "script-src" not in policy
    assert policy["frame-ancestors"] == "'none'"
    assert policy["form-action"] == "'none'"
    assert policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/nowhere"])
def test_configured_headers_are_on_every_answer_and_win(browse: Browse, path: str) -> None:
    browse.policy = SecurityPolicy(
        headers={"Strict-Transport-Security": "max-age=1", "Content-Security-Policy": "frame-ancestors https://grafana"}
    )
    headers = browse.client.get(path).headers
    assert headers["strict-transport-security"] == "max-age=1"
    assert headers.get_list("content-security-policy") == ["frame-ancestors https://grafana"]


# Bodies, methods, hosts


@pytest.mark.parametrize("path", ["/metrics", "/-/reload", "/-/healthy"])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_request_with_a_body_is_refused_unread(browse: Browse, path: str, chunked: bool) -> None:
    body = iter([b"x"]) if chunked else b"x"
    answer = browse.client.request("POST", path, content=body)
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"
    assert browse.reloads == 0


def test_a_body_of_nothing_is_none(browse: Browse) -> None:
    assert browse.client.post("/-/reload", headers={"Content-Length": "0"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://testserver"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Referer": "https://evil.example/page"},
        {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
    ids=str,
)
def test_no_browser_can_be_made_to_reload(browse: Browse, headers: dict[str, str]) -> None:
    answer = browse.client.post("/-/reload", headers=headers)
    assert answer.status_code == 403
    assert browse.reloads == 0


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1", "[::1]", "x" * 5000, "a b", ""])
def test_reload_asks_nobody_for_the_host(browse: Browse, host: str) -> None:
    assert browse.client.post("/-/reload", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_only_post_reloads(browse: Browse, method: str) -> None:
    assert browse.client.request(method, "/-/reload").status_code == 405
    assert browse.reloads == 0


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("tedee.example:8443", "tedee.example:8443"),
        ("[::1]:10333", "[::1]:10333"),
        ("[::1", "localhost:10333"),
        ("<script>", "localhost:10333"),
        ("a\\b", "localhost:10333"),
        ("host]:x", "localhost:10333"),
        ("", "localhost:10333"),
    ],
)
def test_the_documentation_shows_the_host_that_was_asked_if_it_is_one(browse: Browse, host: str, shown: str) -> None:
    answer = browse.client.get("/docs", headers={"Host": host})
    assert answer.status_code == 200
    assert f"[&#34;{shown}&#34;]" in answer.text or f'["{shown}"]' in answer.text


def test_nobody_is_redirected_to_the_host_of_the_request(browse: Browse) -> None:
    answer = browse.client.get("/metrics/", headers={"Host": "evil.example"}, follow_redirects=False)
    assert answer.status_code == 404
    assert "location" not in answer.headers
