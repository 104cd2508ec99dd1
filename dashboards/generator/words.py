"""Codes in words and tones: the very ones of the exporter's status page."""

from collections.abc import Mapping

from grafana_foundation_sdk.models.dashboard import (
    DashboardRangeMapOptions,
    RangeMap,
    ValueMap,
    ValueMapping,
    ValueMappingResult,
)

from exporter.presentation import JAMMED, Display, LockRow
from exporter.sync.snapshot import Lock
from exporter.tedee.models import DeviceState, DoorState, LockState, SyncedLock

from .colours import TONES

Words = Mapping[int, Display]


def _row(state: DeviceState | None = None, *, connected: bool = True) -> LockRow:
    return LockRow.of(Lock(SyncedLock(0, connected, state)))


STATES: Words = {code.value: _row(DeviceState(state=code)).state for code in LockState}
DOORS: Words = {code.value: _row(DeviceState(door_state=code)).door for code in DoorState}
CONNECTIONS: Words = {int(connected): _row(connected=connected).connection for connected in (True, False)}
RESULTS: Words = {0: Display("well", "good"), JAMMED: _row(DeviceState(state_change_result=JAMMED)).state}
SOME_ERROR = Display("with an error", "bad")
"""Of every result beyond those."""
CHARGING: Words = {1: Display("charging", "busy"), 0: Display("no")}
UPDATES: Words = {1: Display("update available", "busy"), 0: Display("up to date", "good")}

SILENT = -1
"""Stands for the success of an account's syncs, where nobody says anything of it."""
ACCOUNTS: Words = {1: Display("up", "good"), 0: Display("failing", "bad"), SILENT: Display("silent", "bad")}
VERSIONS: Words = {1: Display("supported", "good"), 0: Display("no longer supported", "bad")}
CONFIGURATIONS: Words = {1: Display("loaded", "good"), 0: Display("refused", "bad")}
STATE_FILES: Words = {1: Display("usable", "good"), 0: Display("not usable", "bad")}

UNKNOWN_CODE = f"prefix:{LockState.describe(-1).removesuffix('-1')}"
"""As a unit: how a number is shown that is none of the codes."""


def of_tone(words: Words, tone: str) -> list[int]:
    """The codes that are said in that tone."""
    return [code for code, said in words.items() if said.severity == tone]


def mappings(words: Words, beyond: Display | None = None) -> list[ValueMapping]:
    """Value mappings of codes; `beyond` is what all higher numbers mean."""
    known: list[ValueMapping] = [ValueMap({str(code): _result(said) for code, said in words.items()})]
    if beyond:
        known.append(RangeMap(DashboardRangeMapOptions(max(words) + 1, None, _result(beyond))))
    return known


def _result(said: Display) -> ValueMappingResult:
    return ValueMappingResult(text=said.text, color=TONES[said.severity])
