"""A simulated week: the exporter leaks neither memory nor files nor threads."""

from pathlib import Path

import pytest

from testing.program import LONG_TEST
from testing.soak import simulate_week


@pytest.mark.soak
@pytest.mark.timeout(LONG_TEST)
def test_simulated_week_leaks_no_resources(tmp_path: Path) -> None:
    days, violations = simulate_week(tmp_path)
    print("\n" + "\n".join(f"day {number}: {day}" for number, day in enumerate(days, 1)))
    assert violations == 0
    assert days[-1].files == days[0].files
    assert days[-1].threads == days[0].threads
    assert days[-1].memory <= days[0].memory + 4 * 1024
