"""The peer for start and memory: an exporter of one account with requests and prometheus_client.

python -m bench.minimal_exporter URL KEY PORT

It does what the exporter does for its five main metrics, and handles no errors. It imports nothing of the project, so
that its start and its memory are those of the two libraries.
"""

import sys
import time
from datetime import UTC, datetime
from typing import Any

import requests
from prometheus_client import Gauge, start_http_server

INTERVAL = 20.0
LABELS = ("account", "lock_id", "lock_name")
CONNECTED = Gauge("lock_connected", "Whether the lock is connected.", LABELS)
STATE = Gauge("lock_state", "State of the lock.", LABELS)
DOOR_STATE = Gauge("lock_door_state", "State of the door.", LABELS)
BATTERY_LEVEL = Gauge("lock_battery_level", "Battery charge in percent.", LABELS)
LAST_STATE_CHANGE = Gauge("lock_last_state_change_timestamp", "Unix time of the last change of the state.", LABELS)
GAUGES = (CONNECTED, STATE, DOOR_STATE, BATTERY_LEVEL, LAST_STATE_CHANGE)


def timestamp(text: str) -> float:
    """Return Unix seconds. Tedee omits the time zone of some times."""
    return datetime.fromisoformat(text.removesuffix("Z")).replace(tzinfo=UTC).timestamp()


def set_values(rows: list[dict[str, Any]], names: dict[int, str]) -> None:
    """Set the values of a sync."""
    for gauge in GAUGES:
        gauge.clear()
    for row in rows:
        labels = ("home", str(row["id"]), names[row["id"]])
        if row["isConnected"] is not None:
            CONNECTED.labels(*labels).set(row["isConnected"])
        if state := row["deviceState"]:
            STATE.labels(*labels).set(state["state"])
            DOOR_STATE.labels(*labels).set(state["doorState"])
            BATTERY_LEVEL.labels(*labels).set(state["batteryLevel"])
            LAST_STATE_CHANGE.labels(*labels).set(timestamp(state["lastStateChangedDate"]))


def main() -> None:
    """Request the names of the locks once, and their states every 20 seconds."""
    url, key, port = sys.argv[1:]
    session = requests.Session()
    session.headers["Authorization"] = f"PersonalKey {key}"

    def get(path: str) -> Any:
        response = session.get(f"{url}/api/v37/{path}", timeout=10)
        response.raise_for_status()
        return response.json()["result"]

    start_http_server(int(port), "127.0.0.1")
    names = {row["id"]: row["name"] for row in get("my/device/details")["locks"]}
    while True:
        set_values(get("my/lock/sync"), names)
        time.sleep(INTERVAL)


if __name__ == "__main__":
    main()
