"""Faults of the simulated cloud: scripts, and the effect of each kind of fault."""

import pytest
import requests

from testing.faults import EXAMPLES, Fault, Faults
from testing.program import TIMEOUT

from .conftest import Served


def test_scripted_faults_apply_to_one_call_each(served: Served) -> None:
    served.cloud.faults.script(Fault(status=500), None, Fault(status=503))
    assert [served.get().status_code for _ in range(4)] == [500, 200, 503, 200]


def test_last_fault_of_script_can_repeat(served: Served) -> None:
    served.cloud.faults.script(Fault(status=500), Fault(status=503), forever=True)
    assert [served.get().status_code for _ in range(4)] == [500, 503, 503, 503]
    served.cloud.faults.clear()
    assert served.get().status_code == 200


def test_script_applies_to_its_account_and_endpoint() -> None:
    faults = Faults()
    fault = Fault(status=500)
    faults.script(fault, fault, account="home", endpoint="sync")
    assert faults.next("hotel", "sync") is None
    assert faults.next("home", "locks") is None
    assert faults.next(None, "sync") is None
    assert faults.next("home", "sync") is fault


def test_scripts_apply_in_order() -> None:
    faults = Faults()
    one, other = Fault(status=500), Fault(status=503)
    faults.script(one)
    faults.script(other)
    assert [faults.next("home", "sync") for _ in range(3)] == [one, other, None]


def test_error_status_is_in_envelope(served: Served) -> None:
    served.cloud.faults.script(Fault.error(409, "Device is busy"))
    response = served.get()
    assert response.status_code == 409
    assert response.json() == {
        "result": None,
        "success": False,
        "errorMessages": ["Device is busy"],
        "statusCode": 409,
    }


@pytest.mark.parametrize("retry_after", ["7", "Mon, 23 Nov 2026 11:00:30 GMT", "soon", "-1"])
def test_retry_after_is_sent_as_scripted(served: Served, retry_after: str) -> None:
    served.cloud.faults.script(Fault.too_many_requests(retry_after))
    response = served.get()
    assert (response.status_code, response.headers["Retry-After"]) == (429, retry_after)


def test_delayed_response_is_complete(served: Served) -> None:
    served.cloud.faults.script(Fault.delayed(0.05), Fault(status=503, delay=0.05))
    assert [served.get().status_code for _ in range(2)] == [200, 503]


@pytest.mark.parametrize("fault", [Fault.silence(), Fault.delayed(60), Fault.drip(1, 60)])
def test_client_timeout_ends_the_call(served: Served, fault: Fault) -> None:
    served.cloud.faults.script(fault)
    with pytest.raises((requests.ReadTimeout, requests.ConnectionError)):
        requests.get(f"{served.url}/api/v37/my/lock", timeout=0.1)
    assert served.get().status_code == 200
    assert [call.status for call in served.cloud.calls] == [None, 200]


def test_reset_before_first_byte_is_a_connection_error(served: Served) -> None:
    served.cloud.faults.script(Fault.reset())
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        served.get()
    assert served.get().status_code == 200
    assert [call.status for call in served.cloud.calls] == [None, 200]


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_reset_mid_body_truncates_response(served: Served, encoding: str) -> None:
    served.cloud.faults.script(Fault.reset_mid_body())
    headers = {"Authorization": "PersonalKey right", "Accept-Encoding": encoding}
    response = served.session.get(f"{served.url}/api/v37/my/lock", headers=headers, stream=True, timeout=TIMEOUT)
    assert response.status_code == 200
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="reset by peer"):
        _ = response.content
    assert served.cloud.calls[0].status is None
    with pytest.raises(KeyError):
        served.cloud.last_result("home", "locks")


def test_dripping_response_is_complete(served: Served) -> None:
    served.cloud.faults.script(Fault.drip(size=50, interval=0.001))
    assert served.get().json()["result"] == served.cloud.last_result("home")


def test_malformed_json_is_a_complete_http_response(served: Served) -> None:
    served.cloud.faults.script(Fault.malformed())
    response = served.get()
    assert response.status_code == 200
    assert response.text.startswith('{"result":[')
    with pytest.raises(requests.JSONDecodeError):
        response.json()


@pytest.mark.parametrize("value", [None, [], {"result": 1}, "text", 7, {"a": [1, {"b": "🏰"}]}])
def test_any_json_can_replace_the_envelope(served: Served, value: object) -> None:
    served.cloud.faults.script(Fault.json(value))
    assert served.get().json() == value


@pytest.mark.parametrize("value", [None, {}, "text", [1, None, {"id": "x"}]])
def test_any_json_can_replace_the_result(served: Served, value: object) -> None:
    served.cloud.faults.script(Fault.result(value))
    assert served.get().json() == {"result": value, "success": True, "errorMessages": [], "statusCode": 200}


@pytest.mark.parametrize("status", [200, 502])
def test_proxy_error_is_html(served: Served, status: int) -> None:
    served.cloud.faults.script(Fault.html(status))
    response = served.get()
    assert (response.status_code, response.headers["Content-Type"]) == (status, "text/html")
    assert response.text.startswith("<html>")


def test_redirect_has_location(served: Served) -> None:
    served.cloud.faults.script(Fault.redirect("https://example.invalid/"))
    response = served.get()
    assert (response.status_code, response.headers["Location"]) == (302, "https://example.invalid/")


def test_unsuccessful_response_can_have_status_200(served: Served) -> None:
    served.cloud.faults.script(Fault.unsuccessful("Something went wrong"))
    response = served.get()
    assert response.status_code == 200
    assert response.json() == {
        "result": None,
        "success": False,
        "errorMessages": ["Something went wrong"],
        "statusCode": 200,
    }


def test_last_result_has_edits_but_no_replacements(served: Served) -> None:
    served.cloud.faults.script(Fault.edit_rows(lambda locks: locks[:1]), Fault.result([]))
    edited = served.get().json()["result"]
    assert [lock["id"] for lock in edited] == [1]
    served.get()
    assert served.cloud.last_result("home") == edited


def test_edit_does_not_change_an_error(served: Served) -> None:
    served.cloud.faults.script(Fault.edit_rows(lambda locks: locks[:1]))
    assert served.get(authorization=None).status_code == 401


@pytest.mark.parametrize("status", [200, 401])
def test_fault_can_echo_credentials(served: Served, status: int) -> None:
    served.cloud.faults.script(Fault.echo(status))
    response = served.get()
    assert response.status_code == status
    assert response.json()["errorMessages"] == ["Authorization: PersonalKey right", ""]
    assert response.headers["X-Correlation-ID"] == "Authorization: PersonalKey right; "


def test_examples_include_each_kind_of_fault() -> None:
    assert EXAMPLES.keys() == {name for name, value in vars(Fault).items() if isinstance(value, classmethod)}


def test_headers_can_be_added_to_normal_response(served: Served) -> None:
    served.cloud.faults.script(Fault(headers={"API-Supported-Versions": "1.36", "Deprecation": "true"}))
    response = served.get()
    assert response.status_code == 200
    assert (response.headers["API-Supported-Versions"], response.headers["Deprecation"]) == ("1.36", "true")
