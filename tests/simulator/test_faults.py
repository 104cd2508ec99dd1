import pytest
import requests

from exporter.simulator import Fault
from exporter.simulator.faults import TABLE, Faults
from tests.program import TIMEOUT

from .conftest import Served


def test_scripted_faults_are_met_one_a_call(served: Served) -> None:
    served.cloud.faults.script(Fault(status=500), None, Fault(status=503))
    assert [served.get().status_code for _ in range(4)] == [500, 200, 503, 200]


def test_a_script_may_go_on_for_ever(served: Served) -> None:
    served.cloud.faults.script(Fault(status=500), Fault(status=503), forever=True)
    assert [served.get().status_code for _ in range(4)] == [500, 503, 503, 503]
    served.cloud.faults.clear()
    assert served.get().status_code == 200


def test_a_script_concerns_its_account_and_endpoint_alone() -> None:
    faults = Faults()
    fault = Fault(status=500)
    faults.script(fault, fault, account="home", endpoint="sync")
    assert faults.next("hotel", "sync") is None
    assert faults.next("home", "locks") is None
    assert faults.next(None, "sync") is None
    assert faults.next("home", "sync") is fault


def test_scripts_follow_one_another() -> None:
    faults = Faults()
    one, other = Fault(status=500), Fault(status=503)
    faults.script(one)
    faults.script(other)
    assert [faults.next("home", "sync") for _ in range(3)] == [one, other, None]


def test_a_status_comes_in_the_envelope(served: Served) -> None:
    served.cloud.faults.script(Fault.error(409, "Device is busy"))
    answer = served.get()
    assert answer.status_code == 409
    assert answer.json() == {
        "result": None,
        "success": False,
        "errorMessages": ["Device is busy"],
        "statusCode": 409,
    }


@pytest.mark.parametrize("retry_after", ["7", "Mon, 23 Nov 2026 11:00:30 GMT", "soon", "-1"])
def test_retry_after_is_passed_on_as_scripted(served: Served, retry_after: str) -> None:
    served.cloud.faults.script(Fault.too_many_requests(retry_after))
    answer = served.get()
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, retry_after)


def test_a_delayed_answer_comes_all_the_same(served: Served) -> None:
    served.cloud.faults.script(Fault.delayed(0.05), Fault(status=503, delay=0.05))
    assert [served.get().status_code for _ in range(2)] == [200, 503]


@pytest.mark.parametrize("fault", [Fault.silence(), Fault.delayed(60), Fault.drip(1, 60)])
def test_a_client_that_gives_up_ends_the_call(served: Served, fault: Fault) -> None:
    served.cloud.faults.script(fault)
    with pytest.raises((requests.ReadTimeout, requests.ConnectionError)):
        requests.get(f"{served.url}/api/v37/my/lock", timeout=0.1)
    assert served.get().status_code == 200
    assert [call.status for call in served.cloud.calls] == [None, 200]


def test_a_reset_before_any_byte_is_a_connection_error(served: Served) -> None:
    served.cloud.faults.script(Fault.reset())
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        served.get()
    assert served.get().status_code == 200
    assert [call.status for call in served.cloud.calls] == [None, 200]


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_reset_in_mid_body_breaks_an_answer_that_had_begun(served: Served, encoding: str) -> None:
    served.cloud.faults.script(Fault.reset_mid_body())
    headers = {"Authorization": "PersonalKey right", "Accept-Encoding": encoding}
    answer = served.session.get(f"{served.url}/api/v37/my/lock", headers=headers, stream=True, timeout=TIMEOUT)
    assert answer.status_code == 200
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="reset by peer"):
        _ = answer.content
    assert served.cloud.calls[0].status is None
    with pytest.raises(KeyError):
        served.cloud.last_answer("home", "locks")


def test_a_dripping_answer_arrives_whole(served: Served) -> None:
    served.cloud.faults.script(Fault.drip(size=50, interval=0.001))
    assert served.get().json()["result"] == served.cloud.last_answer("home")


def test_malformed_json_is_whole_for_http_and_cut_for_json(served: Served) -> None:
    served.cloud.faults.script(Fault.malformed())
    answer = served.get()
    assert answer.status_code == 200
    assert answer.text.startswith('{"result":[')
    with pytest.raises(requests.JSONDecodeError):
        answer.json()


@pytest.mark.parametrize("value", [None, [], {"result": 1}, "text", 7, {"a": [1, {"b": "🏰"}]}])
def test_any_json_may_stand_in_for_the_envelope(served: Served, value: object) -> None:
    served.cloud.faults.script(Fault.json(value))
    assert served.get().json() == value


@pytest.mark.parametrize("value", [None, {}, "text", [1, None, {"id": "x"}]])
def test_any_json_may_stand_in_for_the_result(served: Served, value: object) -> None:
    served.cloud.faults.script(Fault.result(value))
    assert served.get().json() == {"result": value, "success": True, "errorMessages": [], "statusCode": 200}


@pytest.mark.parametrize("status", [200, 502])
def test_a_proxy_answers_html(served: Served, status: int) -> None:
    served.cloud.faults.script(Fault.html(status))
    answer = served.get()
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "text/html")
    assert answer.text.startswith("<html>")


def test_a_redirect_names_where_to_go(served: Served) -> None:
    served.cloud.faults.script(Fault.redirect("https://example.invalid/"))
    answer = served.get()
    assert (answer.status_code, answer.headers["Location"]) == (302, "https://example.invalid/")


def test_no_success_may_come_with_status_200(served: Served) -> None:
    served.cloud.faults.script(Fault.unsuccessful("Something went wrong"))
    answer = served.get()
    assert answer.status_code == 200
    assert answer.json() == {
        "result": None,
        "success": False,
        "errorMessages": ["Something went wrong"],
        "statusCode": 200,
    }


def test_an_edited_answer_is_the_last_answer_and_an_invented_one_is_not(served: Served) -> None:
    served.cloud.faults.script(Fault.answer(lambda locks: locks[:1]), Fault.result([]))
    edited = served.get().json()["result"]
    assert [lock["id"] for lock in edited] == [1]
    served.get()
    assert served.cloud.last_answer("home") == edited


def test_an_edit_that_finds_an_error_leaves_it_alone(served: Served) -> None:
    served.cloud.faults.script(Fault.answer(lambda locks: locks[:1]))
    assert served.get(authorization=None).status_code == 401


@pytest.mark.parametrize("status", [200, 401])
def test_a_gateway_may_repeat_the_credentials_of_a_call(served: Served, status: int) -> None:
    served.cloud.faults.script(Fault.echo(status))
    answer = served.get()
    assert answer.status_code == status
    assert answer.json()["errorMessages"] == ["Authorization: PersonalKey right", ""]
    assert answer.headers["X-Correlation-ID"] == "Authorization: PersonalKey right; "


def test_the_table_has_one_of_each_kind() -> None:
    assert TABLE.keys() == {name for name, what in vars(Fault).items() if isinstance(what, classmethod)}


def test_headers_may_be_added_to_any_answer(served: Served) -> None:
    served.cloud.faults.script(Fault(headers={"API-Supported-Versions": "1.36", "Deprecation": "true"}))
    answer = served.get()
    assert answer.status_code == 200
    assert (answer.headers["API-Supported-Versions"], answer.headers["Deprecation"]) == ("1.36", "true")
