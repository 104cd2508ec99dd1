"""No output of the program contains who operated a lock or where the home is, whatever Tedee sends."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from exporter.simulator import (
    PERSONAL_TEXTS,
    Account,
    Bridge,
    DoorSensor,
    Gate,
    Keypad,
    Lock,
    PersonalKey,
    World,
    serve,
)
from exporter.simulator.response import Response
from exporter.simulator.wire import HOME
from testing.faults import Fault, FaultyCloud
from testing.program import configuration
from tests.cli.conftest import restore_logging
from tests.security.test_secrets import FORMS, emitted_by_run

__all__ = ["restore_logging"]

LOCATION = {"latitude": HOME["latitude"], "longitude": HOME["longitude"]}
UNLOCKED_BY_APP, UNLOCKED_BY_PIN, UNLOCKED_BY_LINK = 33, 61, 228


def searched() -> Iterator[str]:
    """Yield the texts that must not be found: names in full, their last words, and the position."""
    for text in PERSONAL_TEXTS:
        yield from (text, text.split()[-1])
    yield from map(str, LOCATION.values())


def leaks(emitted: Mapping[str, bytes]) -> dict[str, set[str]]:
    """Return the personal texts that are found in each output, in any case and with escaped characters."""
    found = {
        name: {text for text in searched() if text.lower().encode() in content.lower()}
        for name, content in emitted.items()
    }
    return {name: texts for name, texts in found.items() if texts}


def named(rows: list[Any]) -> list[Any]:
    """Return rows as Tedee documents them, each with names. All names occur."""
    texts = cycle(PERSONAL_TEXTS)
    return [
        {**row, "username": next(texts), "pinAlias": next(texts), "accessLinkName": next(texts)}
        for row in rows
        for _ in range(3)
    ]


def malformed(rows: list[Any]) -> list[Any]:
    """Return rows with names where other values belong, in addition to good rows."""
    (example, *_) = rows
    return [
        *rows[:100],
        *PERSONAL_TEXTS,
        *([text] for text in PERSONAL_TEXTS),
        *({text: text} for text in PERSONAL_TEXTS),
        *({**example, "id": text} for text in PERSONAL_TEXTS),
        *({**example, "event": text, "date": text} for text in PERSONAL_TEXTS),
        *({**example, "event": {text: text}, "date": [text]} for text in PERSONAL_TEXTS),
        *({**example, "username": f"{text}\ud83d", "deviceId": text} for text in PERSONAL_TEXTS),
    ]


FAULTS: Mapping[str, Fault] = {
    "documented": Fault.edit_rows(named),
    "malformed": Fault.edit_rows(malformed),
    "text": Fault.result(", ".join(PERSONAL_TEXTS)),
    "mapping": Fault.result({text: [{"id": text}] for text in PERSONAL_TEXTS}),
    "not JSON": Fault.body("\n".join(PERSONAL_TEXTS).encode()),
    "not an envelope": Fault.json({text: text for text in PERSONAL_TEXTS}),
    "broken": Fault.body(json.dumps({"result": list(PERSONAL_TEXTS)}).encode()[:-1], "application/json"),
}
"""Responses of the activity log, by account."""


def with_position(response: Response) -> Response:
    """Add the position of the home to all devices, although the program did not request it."""

    def add(value: Any) -> Any:
        if isinstance(value, list):
            return [add(each) for each in value]
        if isinstance(value, dict) and "id" in value:
            return {**value, "userSettings": {"location": LOCATION}, "location": LOCATION, **LOCATION}
        return {name: add(each) for name, each in value.items()} if isinstance(value, dict) else value

    return replace(response, result=add(response.result))


def home(name: str, key: str) -> Account:
    """Return an account with an event for each way that has a name. They are new to a program that starts now."""
    lock = Lock(
        1,
        "Front door",
        bridge=Bridge(11, "Hall", "100011-00011"),
        accessories=[Keypad(21, "Keypad"), DoorSensor(31, "Sensor")],
    )
    for number in (UNLOCKED_BY_APP, UNLOCKED_BY_PIN, UNLOCKED_BY_LINK):
        lock.add_event(number, time.time() + 1800, delivered_at=time.time())
    return Account(name, [lock], others=[Gate(41, "Drive")], keys=[PersonalKey(key)])


@pytest.mark.parametrize("form", FORMS)
def test_no_output_contains_personal_data(tmp_path: Path, form: Any) -> None:
    # The clock of Tedee is an hour ahead, so that there are new events at once.
    world = World(
        [home(name, f"key-of-account-{number}") for number, name in enumerate(FAULTS)], lambda: time.time() + 3600
    )
    cloud = FaultyCloud(world, strict=False)
    for name, fault in FAULTS.items():
        cloud.faults.script(fault, account=name, endpoint="activity", forever=True)
    for endpoint in ("details", "door_sensors"):
        cloud.faults.script(Fault(edit=with_position), endpoint=endpoint, forever=True)
    state = tmp_path / "state.db"
    with serve(cloud) as address:
        accounts = [{"name": each.name, "personal_key": each.keys[0].value} for each in world.accounts]
        path = configuration(
            tmp_path, address.url, accounts, events={"enabled": True}, state_file=str(state), api={"timeout": "5s"}
        )
        emitted = emitted_by_run(path, state, form, all_called(cloud))
    assert leaks(emitted) == {}
    metrics = emitted["/metrics, later"].decode()
    for source in ("app", "pin", "access_link"):
        for account in ("documented", "malformed"):
            assert f'account="{account}",event="unlocked",' in metrics
        assert f'source="{source}"' in metrics
    assert 'tedee_rejected_values_total{account="malformed",field="event"}' in metrics
    assert b"unlocked app" in emitted["responses"]
    assert b"value of a response cannot be used" in emitted["stderr"]
    assert emitted["stderr"].count(b"fetch of events failed") >= len(FAULTS) - 2


def all_called(cloud: FaultyCloud) -> Callable[[], bool]:
    """Return a function that returns True if each account was sent devices and events."""
    expected = {(name, endpoint) for name in FAULTS for endpoint in ("details", "door_sensors", "activity")}

    def condition() -> bool:
        return expected <= {(call.account, call.endpoint) for call in cloud.calls if call.status}

    return condition


def test_search_finds_personal_data(tmp_path: Path) -> None:
    text = PERSONAL_TEXTS[0]
    assert leaks({"log": f"ts=… value='{text.upper()}'".encode(), "page": b"nothing"}) == {
        "log": {text, text.split()[-1]}
    }
    assert leaks({"log": json.dumps(LOCATION).encode()})["log"] == set(map(str, LOCATION.values()))
