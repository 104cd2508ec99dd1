"""User accounts of the simulated cloud, with their locks and credentials."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from .accessories import Accessory, DoorSensor, DryContact, Gate, Keypad
from .bridge import Bridge
from .device import Device
from .lock import Lock
from .outages import Outages

DEVICE_SCOPES: Final = frozenset({"Device.Read", "Device.ReadWrite"})
ACTIVITY_SCOPES: Final = frozenset({"DeviceActivity.Read"})

# OAuth scopes are URLs. The scopes of a personal key are plain names.
SCOPE_PREFIX: Final = "https://tedee.onmicrosoft.com/api/"

AnyDevice = TypeVar("AnyDevice", bound=Device)


@dataclass
class Credential:
    """A credential of an account. `expires_at` is in Unix seconds; None means that it does not expire."""

    value: str = field(repr=False)
    scopes: Sequence[str] = ("Device.Read", "DeviceActivity.Read")
    expires_at: float | None = None
    revoked: bool = False

    def valid(self, now: float) -> bool:
        """Return True if the credential is accepted at `now` Unix seconds."""
        return not self.revoked and (self.expires_at is None or now < self.expires_at)

    def has_one_of(self, scopes: frozenset[str]) -> bool:
        """Return True if the credential has one of these scopes."""
        return any(scope.removeprefix(SCOPE_PREFIX) in scopes for scope in self.scopes)


class PersonalKey(Credential):
    """A personal access key, sent as `Authorization: PersonalKey <value>`."""


class Token(Credential):
    """An OAuth access token, sent as `Authorization: Bearer <value>`."""


class RefreshToken(Credential):
    """An OAuth refresh token. It can be used once, for an access token and the next refresh token."""


class Account:
    """A user's account. Its lists of credentials may be changed at any time, its devices with `add` and `remove`.

    Its devices are the locks with their bridges and accessories, and `others`, which belong to no lock. During
    `outages`, the API does not respond to the account. `highlights` are texts about it for users of the demo.
    """

    def __init__(
        self,
        name: str,
        locks: Iterable[Lock] = (),
        *,
        others: Iterable[Device] = (),
        keys: Iterable[PersonalKey] = (),
        tokens: Iterable[Token] = (),
        refresh_tokens: Iterable[RefreshToken] = (),
        outages: Outages | None = None,
        highlights: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.outages = outages
        self.highlights = tuple(highlights)
        self.keys = list(keys)
        self.tokens = list(tokens)
        self.refresh_tokens = list(refresh_tokens)
        self._locks = tuple(locks)
        self._others = tuple(others)

    def __repr__(self) -> str:
        return f"Account({self.name!r})"

    @property
    def locks(self) -> Sequence[Lock]:
        """The locks. The sequence is replaced, never changed in place, because the server's thread reads it."""
        return self._locks

    @property
    def bridges(self) -> list[Bridge]:
        """The bridges, without duplicates."""
        return self._devices(Bridge)

    @property
    def keypads(self) -> list[Keypad]:
        """The keypads, paired with a lock or not."""
        return self._devices(Keypad)

    @property
    def door_sensors(self) -> list[DoorSensor]:
        """The door sensors, paired with a lock or not."""
        return self._devices(DoorSensor)

    @property
    def gates(self) -> list[Gate]:
        """The gates."""
        return self._devices(Gate)

    @property
    def dry_contacts(self) -> list[DryContact]:
        """The dry contacts."""
        return self._devices(DryContact)

    @property
    def devices(self) -> list[Device]:
        """All devices, without duplicates."""
        return self._devices(Device)

    def _devices(self, kind: type[AnyDevice]) -> list[AnyDevice]:
        locks = self._locks
        found: dict[Device, None] = dict.fromkeys(locks)
        found |= dict.fromkeys(lock.bridge for lock in locks if lock.bridge is not None)
        found |= dict.fromkeys(accessory for lock in locks for accessory in lock.accessories)
        found |= dict.fromkeys(self._others)
        return [device for device in found if isinstance(device, kind)]

    def has_outage(self, t: float) -> bool:
        """Return True if the API does not respond to the account at `t` Unix seconds."""
        return self.outages is not None and self.outages.active(t)

    def lock(self, id_or_name: int | str) -> Lock:
        """Return the lock with that id or name. Raises KeyError if there is none."""
        for lock in self._locks:
            if id_or_name in (lock.id, lock.name):
                return lock
        raise KeyError(id_or_name)

    def device(self, id_or_name: int | str) -> Device:
        """Return the device of any kind with that id or name. Raises KeyError if there is none."""
        for device in self.devices:
            if id_or_name in (device.id, device.name):
                return device
        raise KeyError(id_or_name)

    def add(self, device: Device) -> None:
        """Add a device to the account."""
        if isinstance(device, Lock):
            self._locks = (*self._locks, device)
        else:
            self._others = (*self._others, device)

    def remove(self, lock_id: int) -> Lock:
        """Remove a lock and its accessories, and return it. Raises KeyError if there is none with that id."""
        removed = self.lock(lock_id)
        self._locks = tuple(lock for lock in self._locks if lock is not removed)
        return removed

    def remove_device(self, device_id: int) -> Device:
        """Remove a device that is not a lock, also from its locks, and return it.

        Locks of a removed bridge are no longer paired with one. Raises KeyError if there is none with that id.
        """
        removed = self.device(device_id)
        if isinstance(removed, Lock):
            raise KeyError(device_id)
        for lock in self._locks:
            if lock.bridge is removed:
                lock.bridge = None
            if isinstance(removed, Accessory) and removed in lock.accessories:
                lock.unpair(removed)
        self._others = tuple(device for device in self._others if device is not removed)
        return removed
