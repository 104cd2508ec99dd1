"""Recovery of a state file: pure functions of the stored values and the present time."""

from dataclasses import replace

import pytest

from exporter.clock import Instant
from exporter.state.rate_limits import EndpointState, RateLimitState
from exporter.state.recovery import (
    INCOMPLETE_MTIME,
    MAX_RESERVATION,
    FileTimes,
    Stamp,
    StampCheck,
    StoredState,
    check_stamp,
    restore,
)

WRITTEN = Instant("boot 1", monotonic=1_000.0, wall=1_800_000_000.0)
LATER = Instant("boot 1", monotonic=1_060.0, wall=1_800_000_060.0)
REBOOTED = Instant("boot 2", monotonic=30.0, wall=1_800_000_120.0)
TIMES = FileTimes(modified=WRITTEN.wall, changed=WRITTEN.wall)
STAMP = Stamp(WRITTEN, WRITTEN.wall, "0/1")


def test_known_stamp_is_unchanged() -> None:
    assert check_stamp(STAMP, STAMP, TIMES, "0/1", LATER) == StampCheck(is_unchanged=True)


def test_stamp_of_another_process_is_trusted() -> None:
    known = replace(STAMP, at=replace(WRITTEN, monotonic=990.0))
    assert check_stamp(replace(STAMP, blocked_until=1_031.0), known, TIMES, "0/1", LATER) == StampCheck(
        blocked_until=1_031.0
    )


@pytest.mark.parametrize(
    ("stamp", "times", "now", "reason"),
    [
        (None, TIMES, LATER, "damaged"),
        (STAMP, replace(TIMES, modified=INCOMPLETE_MTIME), LATER, "could not write"),
        (STAMP, replace(TIMES, modified=WRITTEN.wall + 3.0), LATER, "changed after the last write"),
        (STAMP, replace(TIMES, changed=WRITTEN.wall + 3.0), LATER, "changed after the last write"),
        (STAMP, TIMES, REBOOTED, "before this machine started"),
        (STAMP, TIMES, replace(LATER, monotonic=999.0), "before this machine started"),
        (replace(STAMP, shard="1/2"), TIMES, LATER, "shard 1/2; this is shard 0/1"),
    ],
)
def test_invalid_proof_is_distrusted_and_replaced(
    stamp: Stamp | None, times: FileTimes, now: Instant, reason: str
) -> None:
    check = check_stamp(stamp, None, times, "0/1", now)
    assert check.distrust_reason
    assert reason in check.distrust_reason
    assert check.must_write


def test_other_shard_on_a_known_file_is_trusted() -> None:
    assert not check_stamp(replace(STAMP, shard="1/2"), STAMP, TIMES, "0/1", LATER).distrust_reason


def test_stamp_of_another_machine_is_not_replaced() -> None:
    other = replace(STAMP, at=replace(WRITTEN, boot="boot of another machine"))
    check = check_stamp(other, STAMP, TIMES, "0/1", LATER)
    assert check.distrust_reason
    assert not check.must_write


STATE = RateLimitState(
    {"sync": EndpointState(next_allowed_at=1_020.0, backoff_until=1_300.0, consecutive_failures=4)},
    blocked_until=1_600.0,
    recent_requests={"sync": (500.0, 999.0)},
)


def test_state_of_this_boot_is_unchanged() -> None:
    assert restore(StoredState(WRITTEN, STATE), LATER) is STATE


def test_state_of_another_boot_is_moved_by_the_wall_clock() -> None:
    restored = restore(StoredState(WRITTEN, STATE), REBOOTED)
    # It was written 120 seconds ago: a request of second 999 was sent 121 seconds ago.
    assert restored.recent_requests == {"sync": (30.0 - 620.0, 30.0 - 121.0)}
    assert restored.blocked_until == 30.0 + 480.0


def test_call_before_reboot_blocks_for_its_full_time() -> None:
    """The wall clock may have jumped, so it cannot show that the call has ended."""
    restored = restore(StoredState(WRITTEN, STATE), REBOOTED)
    assert restored.endpoints == {"sync": EndpointState(next_allowed_at=30.0 + 20.0, consecutive_failures=4)}


@pytest.mark.parametrize("jump", [-365 * 86_400.0, 365 * 86_400.0])
def test_clock_jump_cannot_extend_or_undo_limits(jump: float) -> None:
    now = replace(REBOOTED, wall=REBOOTED.wall + jump)
    state = replace(STATE, endpoints={"sync": EndpointState(next_allowed_at=1e9)}, blocked_until=1e9)
    restored = restore(StoredState(WRITTEN, state), now)
    assert restored.endpoints["sync"].next_allowed_at == now.monotonic + MAX_RESERVATION
    assert restored.blocked_until <= now.monotonic + 3_600.0
    assert all(at <= now.monotonic for at in restored.recent_requests["sync"])
