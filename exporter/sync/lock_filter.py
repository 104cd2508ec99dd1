"""The locks of an account that the configuration selects."""

from collections.abc import Collection
from dataclasses import dataclass

from exporter.tedee.devices import LockDetails


@dataclass(frozen=True)
class LockFilter:
    """The selected locks of an account, by id or by serial number; all locks if both are empty."""

    ids: tuple[int, ...] = ()
    serial_numbers: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ids or self.serial_numbers)

    def resolve(self, details: Collection[LockDetails]) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return the ids of the selected locks in a list, and the ids and serial numbers that the list lacks."""
        ids = {each.id for each in details}
        by_serial_number = {each.serial_number: each.id for each in details}
        found = [lock_id for lock_id in self.ids if lock_id in ids]
        found += [by_serial_number[number] for number in self.serial_numbers if number in by_serial_number]
        missing = [str(lock_id) for lock_id in self.ids if lock_id not in ids]
        missing += [number for number in self.serial_numbers if number not in by_serial_number]
        return tuple(found), tuple(missing)
