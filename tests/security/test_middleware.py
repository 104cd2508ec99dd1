"""The middleware: authentication, rate limit, headers and rejected requests."""

import base64
from concurrent.futures import Future

import pytest
from starlette.testclient import TestClient

from exporter.config.model import parse_duration
from exporter.metrics.collector import ExporterCollector
from exporter.metrics.exposition import Exposition
from exporter.secrets import Secret
from exporter.web.app import create_app
from exporter.web.policy import RateLimit, SecurityPolicy
from testing.clock import FakeClock
from testing.factories import registry, status
from tests.security.web_files import HASH, PASSWORD

ALICE = {"Authorization": "Basic " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode()}
PATHS = ["/", "/metrics", "/docs", "/nowhere", "/-/reload"]


def at_most(burst: int, interval: str) -> RateLimit:
    return RateLimit(parse_duration(interval), burst)


class Browse:
    """The application with its middleware."""

    def __init__(self, clock: FakeClock) -> None:
        self.policy = SecurityPolicy()
        self.reloads = 0
        status_registry = registry(status(clock))
        exposition = Exposition(status_registry, ExporterCollector("1.2.3", lambda: (True, 0.0), lambda: True), clock)
        app = create_app(
            status_registry,
            exposition,
            clock,
            version="1.2.3",
            reload=self._reload,
            security_policy=lambda: self.policy,
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
def test_request_without_password_is_rejected(browse: Browse, path: str) -> None:
    browse.policy = SecurityPolicy(users={"alice": Secret(HASH)})
    for headers in ({}, {"Authorization": "Basic bm90Om1l"}):
        response = browse.client.request("POST" if "reload" in path else "GET", path, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Basic realm="tedee-exporter", charset="UTF-8"'
        assert response.text == "Unauthorized\n"
    assert browse.reloads == 0


def test_request_with_password_is_served(browse: Browse) -> None:
    browse.policy = SecurityPolicy(users={"alice": Secret(HASH)})
    assert "lock_state{" in browse.client.get("/metrics", headers=ALICE).text
    assert browse.client.post("/-/reload", headers=ALICE).text == "reloaded\n"


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_probes_need_no_password_and_have_no_rate_limit(browse: Browse, path: str) -> None:
    browse.policy = SecurityPolicy(users={"alice": Secret(HASH)}, rate_limit=at_most(1, "60s"))
    for _ in range(3):
        response = browse.client.get(path)
        assert response.status_code == 200
        assert "lock" not in response.text


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
def test_no_path_bypasses_authentication(browse: Browse, path: str) -> None:
    browse.policy = SecurityPolicy(users={"alice": Secret(HASH)})
    assert browse.client.get(path).status_code == 401


def test_changed_users_apply_to_next_request(browse: Browse) -> None:
    browse.policy = SecurityPolicy(users={"alice": Secret(HASH)})
    assert browse.client.get("/metrics", headers=ALICE).status_code == 200
    browse.policy = SecurityPolicy(users={"bob": Secret(HASH)})
    assert browse.client.get("/metrics", headers=ALICE).status_code == 401


# The rate limit


def test_rate_limit_allows_burst_then_interval(browse: Browse, clock: FakeClock) -> None:
    browse.policy = SecurityPolicy(rate_limit=at_most(3, "2.5s"))

    def get() -> int:
        return browse.client.get("/metrics").status_code

    assert [get() for _ in range(5)] == [200, 200, 200, 429, 429]
    clock.advance(2.5)
    assert [get() for _ in range(2)] == [200, 429]
    clock.advance(60)
    assert [get() for _ in range(4)] == [200, 200, 200, 429]


def test_rate_limited_response_has_retry_after(browse: Browse) -> None:
    browse.policy = SecurityPolicy(rate_limit=at_most(1, "2.5s"))
    browse.client.get("/")
    response = browse.client.get("/")
    assert response.headers["retry-after"] == "3"
    assert "rate_limit" in response.text


def test_wrong_passwords_count_for_rate_limit(browse: Browse) -> None:
    browse.policy = SecurityPolicy(users={"alice": Secret(HASH)}, rate_limit=at_most(2, "60s"))
    assert [browse.client.get("/").status_code for _ in range(3)] == [401, 401, 429]


# Headers


@pytest.mark.parametrize("path", ["/", "/metrics", "/docs", "/nowhere", "/-/healthy"])
def test_responses_have_nosniff_header(browse: Browse, path: str) -> None:
    assert browse.client.get(path).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_allow_no_scripts_and_no_frames(browse: Browse, path: str) -> None:
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
def test_configured_headers_override_on_every_response(browse: Browse, path: str) -> None:
    browse.policy = SecurityPolicy(
        headers={"Strict-Transport-Security": "max-age=1", "Content-Security-Policy": "frame-ancestors https://grafana"}
    )
    headers = browse.client.get(path).headers
    assert headers["strict-transport-security"] == "max-age=1"
    assert headers.get_list("content-security-policy") == ["frame-ancestors https://grafana"]


# Bodies, methods, hosts


@pytest.mark.parametrize("path", ["/metrics", "/-/reload", "/-/healthy"])
@pytest.mark.parametrize("chunked", [True, False])
def test_request_with_body_is_rejected(browse: Browse, path: str, chunked: bool) -> None:
    body = iter([b"x"]) if chunked else b"x"
    response = browse.client.request("POST", path, content=body)
    assert response.status_code == 413
    assert response.headers["connection"] == "close"
    assert browse.reloads == 0


def test_empty_body_is_accepted(browse: Browse) -> None:
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
def test_reload_request_from_browser_is_rejected(browse: Browse, headers: dict[str, str]) -> None:
    response = browse.client.post("/-/reload", headers=headers)
    assert response.status_code == 403
    assert browse.reloads == 0


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1:1", "[::1]", "x" * 5000, "a b", ""])
def test_reload_accepts_any_host_header(browse: Browse, host: str) -> None:
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
def test_documentation_shows_only_a_valid_host(browse: Browse, host: str, shown: str) -> None:
    response = browse.client.get("/docs", headers={"Host": host})
    assert response.status_code == 200
    assert f"[&#34;{shown}&#34;]" in response.text or f'["{shown}"]' in response.text


def test_no_redirect_to_the_request_host(browse: Browse) -> None:
    response = browse.client.get("/metrics/", headers={"Host": "evil.example"}, follow_redirects=False)
    assert response.status_code == 404
    assert "location" not in response.headers
