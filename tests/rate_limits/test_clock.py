"""The system clock: boot ids and time namespaces."""

from pathlib import Path

import pytest

from exporter.clock import SystemClock

NO_OFFSETS = "monotonic           0         0\nboottime            0         0\n"


def proc(folder: Path, boot: str = "boot-1\n", offsets: str | None = NO_OFFSETS) -> Path:
    """Create a `/proc` like that of the kernel."""
    for path, content in (("sys/kernel/random/boot_id", boot), ("self/timens_offsets", offsets)):
        if content is not None:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
    return folder


@pytest.mark.parametrize("offsets", [NO_OFFSETS, "", None])
def test_processes_of_one_boot_have_one_boot_id(tmp_path: Path, offsets: str | None) -> None:
    assert SystemClock(proc(tmp_path, offsets=offsets)).boot() == "boot-1"


def test_time_namespace_counts_as_another_boot(tmp_path: Path) -> None:
    offsets = "monotonic       86400         0\nboottime            0         0\n"
    ids = {SystemClock(proc(tmp_path / str(number), offsets=offsets)).boot() for number in range(2)}
    assert len(ids) == 1
    assert ids != {"boot-1"}


def test_each_process_without_proc_counts_as_a_boot(tmp_path: Path) -> None:
    assert SystemClock(tmp_path).boot() != SystemClock(tmp_path).boot()
