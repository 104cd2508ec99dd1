"""Texts and colours of codes. They are the same as on the exporter's status page."""

from collections.abc import Mapping

from grafana_foundation_sdk.models.dashboard import (
    DashboardRangeMapOptions,
    RangeMap,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)

# The other modules import these names from here.
from exporter.presentation import JAMMED, LOW_ACCESSORY_BATTERY, LOW_BATTERY, NO_VALUE, Display, LockRow
from exporter.sync.snapshot import Lock
from exporter.tedee.models import DeviceState, DoorState, LockState, SyncedLock

from .colours import SEVERITY_COLOURS

__all__ = ["JAMMED", "LOW_ACCESSORY_BATTERY", "LOW_BATTERY", "NO_VALUE", "Display"]

ValueTexts = Mapping[int, Display]
"""Text and severity of each code."""
LabelTexts = Mapping[str, Display]
"""Text and severity of each value of a label."""


def _row(state: DeviceState | None = None, *, connected: bool = True) -> LockRow:
    return LockRow.of(Lock(SyncedLock(0, connected, state)))


STATES: ValueTexts = {code.value: _row(DeviceState(state=code)).state for code in LockState}
DOORS: ValueTexts = {code.value: _row(DeviceState(door_state=code)).door for code in DoorState}
CONNECTIONS: ValueTexts = {int(connected): _row(connected=connected).connection for connected in (True, False)}
RESULTS: ValueTexts = {0: Display("OK", "good"), JAMMED: _row(DeviceState(state_change_result=JAMMED)).state}
OTHER_ERROR = Display("error", "bad")
"""Text of all results above JAMMED."""
CHARGING: ValueTexts = {1: Display("yes", "busy"), 0: Display("no")}
UPDATING: ValueTexts = {1: Display("yes", "busy"), 0: Display("no")}
UPDATES: ValueTexts = {1: Display("available", "busy"), 0: Display("none", "good")}

NO_DATA = -1
"""Value for an account for which no exporter reports `tedee_up`."""
ACCOUNTS: ValueTexts = {1: Display("up", "good"), 0: Display("failing", "bad"), NO_DATA: Display("no data", "bad")}
SCRAPES: ValueTexts = {1: Display("up", "good"), 0: Display("down", "bad")}
NOT_ENABLED, NOT_PERMITTED = -1, -2
"""Values for numbers of events that are not known: events are not enabled, or Tedee does not permit to read them."""
EVENTS: ValueTexts = {NOT_ENABLED: Display("not enabled"), NOT_PERMITTED: Display("not permitted", "bad")}
VERSIONS: ValueTexts = {1: Display("supported", "good"), 0: Display("no longer supported", "bad")}
CONFIGURATIONS: ValueTexts = {1: Display("loaded", "good"), 0: Display("rejected", "bad")}
ALERT_SEVERITIES: LabelTexts = {
    "critical": Display("critical", "bad"),
    "warning": Display("warning", "warn"),
    "info": Display("info", "busy"),
}
NO_STATE = -1
"""Value for exporters without a state file or database."""
STATE_STORES: ValueTexts = {
    1: Display("usable", "good"),
    0: Display("not usable", "bad"),
    NO_STATE: Display("none"),
}

UNKNOWN_CODE_UNIT = f"prefix:{LockState.describe(-1).removesuffix('-1')}"
"""Grafana unit that shows an unknown code as on the status page, for example `code 42`."""


def codes_with_severity(texts: ValueTexts, severity: str) -> list[int]:
    """Return the codes that have the given severity."""
    return [code for code, display in texts.items() if display.severity == severity]


def value_mappings(texts: ValueTexts | LabelTexts, above: Display | None = None) -> list[ValueMapping]:
    """Return Grafana's value mappings. All numbers above the highest code are shown as `above`."""
    mappings: list[ValueMapping] = [ValueMap({str(code): _result(display) for code, display in texts.items()})]
    if above:
        mappings.append(RangeMap(DashboardRangeMapOptions(max(map(int, texts)) + 1, None, _result(above))))
    return mappings


def _result(display: Display) -> ValueMappingResult:
    return ValueMappingResult(text=display.text, color=SEVERITY_COLOURS[display.severity])
