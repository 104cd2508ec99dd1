"""Renders devices to compressed blocks of the exposition. What did not change is not rendered again."""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, zip_longest
from typing import Generic, Protocol, TypeVar

from .catalogue import Metric
from .collector import add_samples, empty_family, sample_lines
from .compression import CompressedBlock

BLOCK_SIZE = 512
"""Devices in a block. The lines of so many locks in one family are about 40 KiB. Larger blocks would not compress
better: deflate refers back at most 32 KiB."""
BATCH_SIZE = 64
"""Devices whose samples are in memory at the same time. A sample takes half a kilobyte, a line a tenth of it."""


class LabelledDevice(Protocol):
    """A lock or another device."""

    @property
    def id(self) -> int:
        """Tedee's id of the device."""
        ...

    @property
    def label(self) -> str:
        """The name that the owner chose; the id if the name is unknown."""
        ...


DeviceT = TypeVar("DeviceT", bound=LabelledDevice)
AccountDevice = tuple[str, DeviceT]
"""The name of an account, and one of its devices."""
DeviceKey = tuple[str, int]
"""The name of an account, and the id of one of its devices."""
DeviceLines = Sequence[bytes]
"""The lines of a device in each family of its kind, without the last newline; empty without a sample in the family."""


@dataclass(frozen=True, slots=True)
class DeviceGroup:
    """Up to BLOCK_SIZE consecutive devices: a block of each family, with their lines."""

    keys: Sequence[DeviceKey]
    blocks: Sequence[CompressedBlock]
    counts: Sequence[Sequence[int]]
    """For each family the number of lines of each device."""

    @classmethod
    def of(cls, lines: Mapping[DeviceKey, DeviceLines], before: "DeviceGroup | None") -> "DeviceGroup":
        """Compress the lines of devices. Blocks of the earlier version with the same lines are reused."""
        keys = [*lines]
        blocks, counts = [], []
        for index, column in enumerate(zip(*lines.values(), strict=True)):
            plain = b"\n".join([*filter(None, column), b""])
            known = before.blocks[index] if before and before.blocks[index].plain == plain else None
            blocks.append(known or CompressedBlock.of(plain))
            counts.append(
                before.counts[index]
                if known and before and before.keys == keys
                else array("I", (each.count(b"\n") + 1 if each else 0 for each in column))
            )
        return cls(keys, blocks, counts)

    def lines(self) -> Iterator[tuple[DeviceKey, DeviceLines]]:
        """Yield each device with its lines. They are taken from the blocks, since storing them takes as much memory."""
        columns = map(_split, self.blocks, self.counts)
        return zip(self.keys, zip(*columns, strict=True), strict=True)


def _split(block: CompressedBlock, counts: Sequence[int]) -> Sequence[bytes]:
    """Return the lines of each device in a block."""
    lines = block.plain.split(b"\n")[:-1]
    if len(lines) == len(counts) and max(counts) == 1:
        return lines
    bounds = pairwise(accumulate(counts, initial=0))
    return [lines[first] if first + 1 == last else b"\n".join(lines[first:last]) for first, last in bounds]


class RenderedDevices(Generic[DeviceT]):
    """The lines of all devices of one kind.

    A device is rendered again if it changed, and a block compressed again if a line did.
    """

    def __init__(self, metrics: Sequence[Metric[DeviceT]]) -> None:
        """Create an empty set of lines.

        Args:
            metrics: The metrics of the kind.
        """
        self.metrics = metrics
        self._devices: dict[DeviceKey, DeviceT] = {}
        self._groups: list[DeviceGroup] = []

    def update(self, devices: Iterable[AccountDevice[DeviceT]]) -> None:
        """Replace the devices. The order of the samples is that of the devices."""
        current = {(account, device.id): device for account, device in devices}
        changed = {key: device for key, device in current.items() if self._devices.get(key) != device}
        keys = [*current]
        if changed or [*self._devices] != keys:
            self._groups = [*self._replace_groups(keys, changed)]
        self._devices = current

    def _replace_groups(self, keys: Sequence[DeviceKey], changed: Mapping[DeviceKey, DeviceT]) -> Iterator[DeviceGroup]:
        """Yield the groups of the devices with these keys.

        Args:
            keys: All devices, in order.
            changed: The devices among them that are new or have changed.
        """
        rendered = render(self.metrics, [(account, device) for (account, _), device in changed.items()])
        parts = [keys[start : start + BLOCK_SIZE] for start in range(0, len(keys), BLOCK_SIZE)]
        pairs = [*zip_longest(parts, self._groups)]
        # Most devices after one that was added or removed are in another group than before.
        regrouped = (group for part, group in pairs if group and group.keys != part)
        known: dict[DeviceKey, DeviceLines] = {}
        for part, group in pairs:
            if group and group.keys == part:
                if changed.keys().isdisjoint(part):
                    yield group
                    continue
                known.update(group.lines())
            lines = {}
            for key in part or ():
                while key not in changed and key not in known:
                    known.update(next(regrouped).lines())
                old = known.pop(key, ())
                lines[key] = next(rendered) if key in changed else old
            if lines:
                yield DeviceGroup.of(lines, group)

    def families(self) -> Iterator[tuple[Metric[DeviceT], Sequence[CompressedBlock]]]:
        """Yield each metric that has samples, with its blocks."""
        for index, metric in enumerate(self.metrics):
            if blocks := [group.blocks[index] for group in self._groups if group.blocks[index].plain]:
                yield metric, blocks


def render(metrics: Sequence[Metric[DeviceT]], devices: Sequence[AccountDevice[DeviceT]]) -> Iterator[DeviceLines]:
    """Yield the lines of each device.

    Devices are rendered in batches, because samples take much more memory than lines.
    """
    for start in range(0, len(devices), BATCH_SIZE):
        batch = [((account, str(each.id), each.label), each) for account, each in devices[start : start + BATCH_SIZE]]
        columns = []
        for metric in metrics:
            family, counts = empty_family(metric), [0]
            for labels, device in batch:
                add_samples(family, metric, labels, device)
                counts.append(len(family.samples))
            lines = sample_lines(family)
            columns.append([b"".join(lines[first:last]).removesuffix(b"\n") for first, last in pairwise(counts)])
        yield from zip(*columns, strict=True)
