"""The simulated API: responses, versions, credentials and recorded calls."""

import uuid

import pytest
import requests

from exporter.simulator import Cloud, Lock, Outages, World, serve
from testing.program import TIMEOUT

from .conftest import NOON, Served

STATE_FIELDS = {"state", "doorState", "isCharging", "batteryLevel", "stateChangeResult", "lastStateChangedDate"}


def test_sync_returns_all_locks_in_envelope(served: Served) -> None:
    response = served.get().json()
    assert (response["success"], response["errorMessages"], response["statusCode"]) == (True, [], 200)
    assert [lock["id"] for lock in response["result"]] == [1, 2, 3]
    assert set(response["result"][0]) == {"id", "isConnected", "deviceState", "revision"}
    assert set(response["result"][0]["deviceState"]) == STATE_FIELDS
    assert response["result"][2] == {"id": 3, "isConnected": None, "deviceState": None, "revision": 1}


def test_sync_returns_requested_locks(served: Served) -> None:
    assert [lock["id"] for lock in served.get("my/lock/sync?id=3&ID=1").json()["result"]] == [3, 1]
    assert served.cloud.calls[0].ids == (3, 1)


def test_lock_of_no_account_is_not_found(served: Served) -> None:
    response = served.get("my/lock/sync?id=1&id=99")
    assert response.status_code == 404
    assert response.json()["errorMessages"] == ["Lock 99 was not found"]


@pytest.mark.parametrize("query", ["my/lock/sync?id=x", "my/lock?Page=0", "my/lock?Page=x", "my/lock?ItemsPerPage=-1"])
def test_invalid_query_is_a_bad_request(served: Served, query: str) -> None:
    response = served.get(query)
    assert (response.status_code, response.json()["success"]) == (400, False)


def test_paths_and_query_names_are_case_insensitive(served: Served) -> None:
    response = served.session.get(
        f"{served.url}/API/V37/My/Lock?pAGE=2&itemsperpage=2",
        headers={"authorization": "personalkey right"},
        timeout=TIMEOUT,
    )
    assert [lock["name"] for lock in response.json()["result"]] == ["Cellar"]


def test_list_of_locks_has_pages(served: Served) -> None:
    pages = [served.get(f"my/lock?Page={page}&ItemsPerPage=2").json()["result"] for page in (1, 2, 3)]
    assert [[lock["name"] for lock in page] for page in pages] == [["Front door", "Garage"], ["Cellar"], []]


def test_page_has_default_and_maximum_size() -> None:
    cloud = Cloud(World.of_size(1, 250))
    headers = {"Authorization": "PersonalKey key-account-0001"}
    with serve(cloud) as address:
        default = requests.get(f"{address.url}/api/v37/my/lock", headers=headers, timeout=TIMEOUT)
        largest = requests.get(f"{address.url}/api/v37/my/lock?ItemsPerPage=1000", headers=headers, timeout=TIMEOUT)
    assert (len(default.json()["result"]), len(largest.json()["result"])) == (50, 100)


def test_details_return_bridges_and_locks(served: Served) -> None:
    result = served.get("my/device/details").json()["result"]
    assert [(bridge["id"], bridge["name"], bridge["isConnected"]) for bridge in result["bridges"]] == [
        (7, "Hallway", True)
    ]
    assert [lock["connectedToId"] for lock in result["locks"]] == [7, 7, None]
    assert (result["keypads"], result["gates"], result["dryContacts"]) == ([], [], [])


def test_each_version_has_its_format(served: Served) -> None:
    assert "lockProperties" in served.get(version="v1.34").json()["result"][0]
    assert "deviceState" in served.get(version="v1.36").json()["result"][0]


def test_retired_version_is_neither_served_nor_listed(served: Served) -> None:
    assert served.get().headers["API-Supported-Versions"] == "1.34, 1.35, 1.36, 37"
    served.cloud.retire("v37")
    response = served.get()
    assert response.status_code == 404
    assert response.json()["success"] is False
    assert response.headers["API-Supported-Versions"] == "1.34, 1.35, 1.36"


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("", 401),
        ("PersonalKey", 401),
        ("PersonalKey wrong", 401),
        ("PersonalKey jwt", 401),
        ("Bearer right", 401),
        ("Basic right", 401),
        ("PersonalKey cannot-read", 403),
        ("PersonalKey right", 200),
        ("Bearer jwt", 200),
    ],
)
@pytest.mark.parametrize("path", ["my/lock/sync", "my/lock", "my/device/details"])
def test_credential_must_be_valid_with_device_scope(
    served: Served, path: str, authorization: str | None, status: int
) -> None:
    response = served.get(path, authorization=authorization)
    assert (response.status_code, response.json()["statusCode"], response.json()["success"]) == (
        status,
        status,
        status == 200,
    )


def test_key_expires_by_world_clock(served: Served) -> None:
    served.account.keys[0].expires_at = NOON + 60
    assert served.get().status_code == 200
    served.wall.advance(60)
    assert served.get().status_code == 401


def test_revoked_key_is_unauthorized(served: Served) -> None:
    served.account.keys[0].revoked = True
    assert served.get().status_code == 401


def test_key_of_another_account_returns_no_locks(served: Served) -> None:
    assert served.get(authorization="PersonalKey theirs").json()["result"] == []


def test_methods_other_than_get_are_not_allowed(served: Served) -> None:
    response = served.session.post(f"{served.url}/api/v37/my/lock", timeout=TIMEOUT)
    assert (response.status_code, response.headers["Allow"], response.json()["success"]) == (405, "GET", False)


def test_unknown_path_is_not_found_in_envelope(served: Served) -> None:
    response = served.get("my/garden")
    assert (response.status_code, response.json()["statusCode"]) == (404, 404)
    assert response.headers["API-Supported-Versions"]


def test_response_has_correlation_id_and_world_date(served: Served) -> None:
    responses = [served.get(), served.get("my/garden"), served.get(authorization=None)]
    ids = [response.headers["X-Correlation-ID"] for response in responses]
    assert len({uuid.UUID(text) for text in ids}) == 3
    assert ids == [call.correlation_id for call in served.cloud.calls]
    assert {response.headers["Date"] for response in responses} == {"Mon, 23 Nov 2026 11:00:00 GMT"}


def test_response_is_compressed_if_accepted(served: Served) -> None:
    plain = served.session.get(
        f"{served.url}/api/v37/my/lock", headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT
    )
    compressed = served.session.get(
        f"{served.url}/api/v37/my/lock", headers={"Accept-Encoding": "gzip"}, timeout=TIMEOUT
    )
    assert "Content-Encoding" not in plain.headers
    assert compressed.headers["Content-Encoding"] == "gzip"
    assert compressed.json() == plain.json()


def test_call_is_recorded_without_credential(served: Served) -> None:
    served.clock.advance(5)
    served.session.headers["User-Agent"] = "exporter/1"
    served.get("my/lock/sync?id=2", version="v1.36")
    (call,) = served.cloud.calls
    assert (call.account, call.endpoint, call.version, call.ids, call.user_agent) == (
        "home",
        "sync",
        "v1.36",
        (2,),
        "exporter/1",
    )
    assert (call.arrived, call.finished, call.at, call.status) == (1005.0, 1005.0, NOON, 200)
    assert "right" not in repr(call)


def test_call_with_unknown_credential_is_recorded(served: Served) -> None:
    served.get(authorization="PersonalKey wrong")
    assert (served.cloud.calls[0].account, served.cloud.calls[0].status) == (None, 401)


def test_last_result_is_the_result_sent(served: Served) -> None:
    first = served.get().json()["result"]
    served.account.lock(1).override(batteryLevel=12)
    served.get("my/lock")
    assert served.cloud.last_result("home") == first
    assert served.get().json()["result"] == served.cloud.last_result("home") != first


def test_error_does_not_change_last_result(served: Served) -> None:
    first = served.get().json()["result"]
    served.get("my/lock/sync?id=99")
    assert served.cloud.last_result("home") == first


def test_last_result_of_account_without_calls_is_missing(served: Served) -> None:
    with pytest.raises(KeyError):
        served.cloud.last_result("neighbours")


def test_change_of_world_is_in_next_response(served: Served) -> None:
    served.account.remove(2)
    served.account.add(Lock(9, "Attic"))
    served.account.lock(1).rename("Gate \\ \n 🏰")
    assert [(lock["id"], lock["name"]) for lock in served.get("my/lock").json()["result"]] == [
        (1, "Gate \\ \n 🏰"),
        (3, "Cellar"),
        (9, "Attic"),
    ]


def test_account_has_no_response_during_an_outage(served: Served) -> None:
    served.account.outages = Outages(period=100.0, length=20.0, start=NOON + 10)
    assert served.get().ok
    served.wall.advance(15)
    for path in ("my/lock/sync", "my/lock"):
        with pytest.raises(requests.ReadTimeout):
            requests.get(
                f"{served.url}/api/v37/{path}", headers={"Authorization": "PersonalKey right"}, timeout=(TIMEOUT, 0.5)
            )
    assert served.get(authorization="PersonalKey theirs").ok
    served.wall.advance(20)
    assert served.get().ok
    assert [call.status for call in served.cloud.calls] == [200, None, None, 200, 200]
