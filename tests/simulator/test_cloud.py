import uuid

import pytest
import requests

from exporter.simulator import Cloud, Lock, World, serve
from tests.program import TIMEOUT

from .conftest import NOON, Served

FIELDS_OF_A_STATE = {"state", "doorState", "isCharging", "batteryLevel", "stateChangeResult", "lastStateChangedDate"}


def test_sync_answers_every_lock_in_tedees_envelope(served: Served) -> None:
    answer = served.get().json()
    assert (answer["success"], answer["errorMessages"], answer["statusCode"]) == (True, [], 200)
    assert [lock["id"] for lock in answer["result"]] == [1, 2, 3]
    assert set(answer["result"][0]) == {"id", "isConnected", "deviceState", "revision"}
    assert set(answer["result"][0]["deviceState"]) == FIELDS_OF_A_STATE
    assert answer["result"][2] == {"id": 3, "isConnected": None, "deviceState": None, "revision": 1}


def test_sync_answers_the_locks_asked_for(served: Served) -> None:
    assert [lock["id"] for lock in served.get("my/lock/sync?id=3&ID=1").json()["result"]] == [3, 1]
    assert served.cloud.calls[0].ids == (3, 1)


def test_a_lock_the_account_does_not_have_is_not_found(served: Served) -> None:
    answer = served.get("my/lock/sync?id=1&id=99")
    assert answer.status_code == 404
    assert answer.json()["errorMessages"] == ["Lock 99 was not found"]


@pytest.mark.parametrize("query", ["my/lock/sync?id=x", "my/lock?Page=0", "my/lock?Page=x", "my/lock?ItemsPerPage=-1"])
def test_a_query_that_makes_no_sense_is_a_bad_request(served: Served, query: str) -> None:
    answer = served.get(query)
    assert (answer.status_code, answer.json()["success"]) == (400, False)


def test_paths_and_query_names_are_case_insensitive(served: Served) -> None:
    answer = served.session.get(
        f"{served.url}/API/V37/My/Lock?pAGE=2&itemsperpage=2",
        headers={"authorization": "personalkey right"},
        timeout=TIMEOUT,
    )
    assert [lock["name"] for lock in answer.json()["result"]] == ["Cellar"]


def test_the_list_of_locks_comes_by_pages(served: Served) -> None:
    pages = [served.get(f"my/lock?Page={page}&ItemsPerPage=2").json()["result"] for page in (1, 2, 3)]
    assert [[lock["name"] for lock in page] for page in pages] == [["Front door", "Garage"], ["Cellar"], []]


def test_a_page_has_a_default_size_and_a_largest() -> None:
    cloud = Cloud(World.of_size(1, 250))
    headers = {"Authorization": "PersonalKey key-account-0001"}
    with serve(cloud) as address:
        default = requests.get(f"{address.url}/api/v37/my/lock", headers=headers, timeout=TIMEOUT)
        largest = requests.get(f"{address.url}/api/v37/my/lock?ItemsPerPage=1000", headers=headers, timeout=TIMEOUT)
    assert (len(default.json()["result"]), len(largest.json()["result"])) == (50, 100)


def test_details_answer_bridges_and_locks(served: Served) -> None:
    result = served.get("my/device/details").json()["result"]
    assert [(bridge["id"], bridge["name"], bridge["isConnected"]) for bridge in result["bridges"]] == [
        (7, "Hallway", True)
    ]
    assert [lock["connectedToId"] for lock in result["locks"]] == [7, 7, None]
    assert (result["keypads"], result["gates"], result["dryContacts"]) == ([], [], [])


def test_each_version_has_its_shape(served: Served) -> None:
    assert "lockProperties" in served.get(version="v1.34").json()["result"][0]
    assert "deviceState" in served.get(version="v1.36").json()["result"][0]


def test_a_retired_version_is_not_found_and_no_longer_named(served: Served) -> None:
    assert served.get().headers["API-Supported-Versions"] == "1.34, 1.35, 1.36, 37"
    served.cloud.retire("v37")
    answer = served.get()
    assert answer.status_code == 404
    assert answer.json()["success"] is False
    assert answer.headers["API-Supported-Versions"] == "1.34, 1.35, 1.36"


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
def test_only_a_valid_credential_with_a_reading_scope_is_let_in(
    served: Served, path: str, authorization: str | None, status: int
) -> None:
    answer = served.get(path, authorization=authorization)
    assert (answer.status_code, answer.json()["statusCode"], answer.json()["success"]) == (
        status,
        status,
        status == 200,
    )


def test_a_key_expires_by_the_worlds_clock(served: Served) -> None:
    served.account.keys[0].expires_at = NOON + 60
    assert served.get().status_code == 200
    served.wall.advance(60)
    assert served.get().status_code == 401


def test_a_revoked_key_is_unauthorized(served: Served) -> None:
    served.account.keys[0].revoked = True
    assert served.get().status_code == 401


def test_another_accounts_key_shows_none_of_the_locks(served: Served) -> None:
    assert served.get(authorization="PersonalKey theirs").json()["result"] == []


def test_anything_but_get_is_not_allowed(served: Served) -> None:
    answer = served.session.post(f"{served.url}/api/v37/my/lock", timeout=TIMEOUT)
    assert (answer.status_code, answer.headers["Allow"], answer.json()["success"]) == (405, "GET", False)


def test_an_unknown_path_is_not_found_in_the_envelope(served: Served) -> None:
    answer = served.get("my/garden")
    assert (answer.status_code, answer.json()["statusCode"]) == (404, 404)
    assert answer.headers["API-Supported-Versions"]


def test_every_answer_has_its_own_correlation_id_and_the_worlds_date(served: Served) -> None:
    answers = [served.get(), served.get("my/garden"), served.get(authorization=None)]
    ids = [answer.headers["X-Correlation-ID"] for answer in answers]
    assert len({uuid.UUID(written) for written in ids}) == 3
    assert ids == [call.correlation_id for call in served.cloud.calls]
    assert {answer.headers["Date"] for answer in answers} == {"Mon, 23 Nov 2026 11:00:00 GMT"}


def test_answers_are_compressed_if_asked(served: Served) -> None:
    plain = served.session.get(
        f"{served.url}/api/v37/my/lock", headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT
    )
    packed = served.session.get(f"{served.url}/api/v37/my/lock", headers={"Accept-Encoding": "gzip"}, timeout=TIMEOUT)
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.json() == plain.json()


def test_a_call_is_recorded_without_its_credential(served: Served) -> None:
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
    assert (call.arrived, call.answered, call.at, call.status) == (1005.0, 1005.0, NOON, 200)
    assert "right" not in repr(call)


def test_a_call_in_nobodys_name_is_recorded_too(served: Served) -> None:
    served.get(authorization="PersonalKey wrong")
    assert (served.cloud.calls[0].account, served.cloud.calls[0].status) == (None, 401)


def test_the_last_answer_is_what_was_sent(served: Served) -> None:
    first = served.get().json()["result"]
    served.account.lock(1).override(batteryLevel=12)
    served.get("my/lock")
    assert served.cloud.last_answer("home") == first
    assert served.get().json()["result"] == served.cloud.last_answer("home") != first


def test_an_error_leaves_the_last_answer_as_it_was(served: Served) -> None:
    first = served.get().json()["result"]
    served.get("my/lock/sync?id=99")
    assert served.cloud.last_answer("home") == first


def test_the_last_answer_of_an_account_never_answered_is_missing(served: Served) -> None:
    with pytest.raises(KeyError):
        served.cloud.last_answer("neighbours")


def test_a_change_of_the_world_shows_in_the_next_answer(served: Served) -> None:
    served.account.remove(2)
    served.account.add(Lock(9, "Attic"))
    served.account.lock(1).rename("Gate \\ \n 🏰")
    assert [(lock["id"], lock["name"]) for lock in served.get("my/lock").json()["result"]] == [
        (1, "Gate \\ \n 🏰"),
        (3, "Cellar"),
        (9, "Attic"),
    ]
