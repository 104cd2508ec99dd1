"""The endpoints of Tedee's API. Each is a function from a request to a response."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import wraps
from typing import Final

from .account import ACTIVITY_SCOPES, DEVICE_SCOPES, Account, AnyDevice
from .lock import Lock
from .request import Request
from .response import Response
from .wire import (
    JSONObject,
    Variants,
    Version,
    activity_entry,
    bridge_entry,
    device_entry,
    door_sensor_entry,
    dry_contact_entry,
    gate_entry,
    keypad_entry,
    lock_entry,
    sync_entry,
    unknown_device_entry,
)
from .world import World

EVERYTHING: Final = 2**31 - 1
"""The default size of a page of door sensors or gates."""

MOST_EVENTS: Final = 200
"""The default and largest number of events in a response."""

Handler = Callable[[Request], Response]
Resource = Callable[["Api", Request, Account, Version], Response]


def authorized(scopes: frozenset[str] = DEVICE_SCOPES) -> Callable[[Resource], Callable[["Api", Request], Response]]:
    """Reject a request unless it is a GET, in a supported version, with a credential that has one of the scopes."""

    def decorate(resource: Resource) -> Callable[["Api", Request], Response]:
        @wraps(resource)
        def respond(api: "Api", request: Request) -> Response:
            version = api.version(request.version)
            if version is None:
                return Response.error(404, f"API version {request.version} is not supported")
            if request.method != "GET":
                return Response.error(405, f"{request.method} is not allowed", headers={"Allow": "GET"})
            account, credential = request.account, request.credential
            if account is None or credential is None or not credential.valid(api.world.now()):
                return Response.error(401, "Unauthorized")
            if not credential.has_one_of(scopes):
                return Response.error(403, f"Forbidden: scope {min(scopes)} is missing")
            return resource(api, request, account, version)

        return respond

    return decorate


class Api:
    """The endpoints of the cloud."""

    def __init__(
        self,
        world: World,
        versions: Sequence[str],
        variants: Variants,
        *,
        default_page: int,
        largest_page: int,
        smallest_page: int,
    ) -> None:
        # Tedee documents `Page` and `ItemsPerPage` without their bounds. Assumption: pages are numbered from 1, and
        # their size has a default and a maximum.
        self.world = world
        self.variants = variants
        self._versions = tuple(Version(version.lower()) for version in versions)
        self._default_page = default_page
        self._largest_page = largest_page
        self._smallest_page = smallest_page

    @property
    def supported_versions(self) -> str:
        """The supported versions as written in the header: `1.34, 1.35, 1.36, 37`."""
        return ", ".join(version.removeprefix("v") for version in self._versions)

    def version(self, text: str) -> Version | None:
        """Return the version in the path. Returns None if it is not supported."""
        return next((version for version in self._versions if version == text.lower()), None)

    def retire(self, retired: str) -> None:
        """Stop supporting a version."""
        self._versions = tuple(version for version in self._versions if version != retired.lower())

    @authorized()
    def sync(self, request: Request, account: Account, version: Version) -> Response:
        """Respond to `/my/lock/sync` with the states of all locks, or of those selected by `id`."""
        try:
            ids = request.integers("id")
        except ValueError:
            return Response.error(400, "The value of id is not valid")
        locks = {lock.id: lock for lock in account.locks}
        unknown = [lock_id for lock_id in ids if lock_id not in locks]
        if unknown:
            return Response.error(404, f"Lock {unknown[0]} was not found")
        now = self.world.now()
        selected = (locks[lock_id] for lock_id in dict.fromkeys(ids)) if ids else locks.values()
        return Response([sync_entry(lock, now, version) for lock in selected], genuine=True)

    @authorized()
    def locks(self, request: Request, account: Account, version: Version) -> Response:
        """Respond to `/my/lock` with states and details of the locks, in pages."""
        try:
            number, size = _page(request, self._default_page)
        except ValueError as error:
            return Response.error(400, str(error))
        size = max(self._smallest_page, min(size, self._largest_page))
        now = self.world.now()
        options = {"accessories": request.flag("includeaccessories"), "user_settings": _asks_for_user_settings(request)}
        locks = account.locks[(number - 1) * size : number * size]
        return Response([lock_entry(lock, now, version, **options) for lock in locks], genuine=True)

    @authorized()
    def devices(self, request: Request, account: Account, version: Version) -> Response:  # noqa: ARG002 - a Resource
        """Respond to `/my/device` with all devices. Tedee does not document the format."""
        now = self.world.now()
        return Response([device_entry(device, now, version, self.variants) for device in account.devices], genuine=True)

    @authorized()
    def details(self, request: Request, account: Account, version: Version) -> Response:
        """Respond to `/my/device/details` with all devices except door sensors."""
        now, variants = self.world.now(), self.variants
        accessories, user_settings = request.flag("includeaccessories"), _asks_for_user_settings(request)
        keypads = [keypad_entry(keypad, now, variants) for keypad in account.keypads]
        result: dict[str, object] = {
            "bridges": [bridge_entry(bridge, now) for bridge in account.bridges],
            "locks": [
                lock_entry(lock, now, version, accessories=accessories, user_settings=user_settings)
                for lock in account.locks
            ],
            "keypads": keypads,
            "gates": [gate_entry(gate, now, user_settings=user_settings) for gate in account.gates],
            variants.dry_contacts: [dry_contact_entry(contact) for contact in account.dry_contacts],
        }
        if variants.door_sensors_in_details:
            result["doorSensors"] = [door_sensor_entry(sensor, now, variants) for sensor in account.door_sensors]
        if variants.unknown_devices:
            result["keypads"] = [*keypads, unknown_device_entry(999_002, 11)]
            result["sirens"] = [unknown_device_entry(999_001, 12)]
        return Response(result, genuine=True)

    @authorized()
    def bridges(self, request: Request, account: Account, version: Version) -> Response:  # noqa: ARG002 - a Resource
        """Respond to `/my/bridge` with all bridges."""
        now = self.world.now()
        return Response([bridge_entry(bridge, now) for bridge in account.bridges], genuine=True)

    @authorized()
    def keypads(self, request: Request, account: Account, version: Version) -> Response:  # noqa: ARG002 - a Resource
        """Respond to `/my/keypad` with all keypads."""
        now = self.world.now()
        return Response([keypad_entry(keypad, now, self.variants) for keypad in account.keypads], genuine=True)

    @authorized()
    def door_sensors(self, request: Request, account: Account, version: Version) -> Response:  # noqa: ARG002 - a Resource
        """Respond to `/my/doorsensor` with the door sensors, in pages."""
        now, user_settings = self.world.now(), _asks_for_user_settings(request)
        return _paged(
            request,
            "doorSensors",
            account.door_sensors,
            lambda sensor: door_sensor_entry(sensor, now, self.variants, user_settings=user_settings),
        )

    @authorized()
    def gates(self, request: Request, account: Account, version: Version) -> Response:  # noqa: ARG002 - a Resource
        """Respond to `/my/gate` with the gates, in pages."""
        now, user_settings = self.world.now(), _asks_for_user_settings(request)
        return _paged(request, "gates", account.gates, lambda gate: gate_entry(gate, now, user_settings=user_settings))

    @authorized(ACTIVITY_SCOPES)
    def activity(self, request: Request, account: Account, version: Version) -> Response:  # noqa: ARG002 - a Resource
        """Respond to `/my/deviceactivity` with events of one device, the newest first. Only locks have any."""
        try:
            (device_id,) = request.integers("deviceid")
            elements = [MOST_EVENTS, *request.integers("elements")][-1]
            date = request.text("lastelemdate")
            before = _timestamp(date) if date else None
        except ValueError:
            return Response.error(400, "The value of deviceId, elements or lastElemDate is not valid")
        if elements < 1:
            return Response.error(400, "elements must be greater than 0")
        device = next((device for device in account.devices if device.id == device_id), None)
        if device is None:
            return Response.error(404, f"Device {device_id} was not found")
        events = (
            device.delivered_events(self.world.now(), before, min(elements, MOST_EVENTS))
            if isinstance(device, Lock)
            else []
        )
        return Response([activity_entry(event, device_id) for event in events], genuine=True)

    def unknown(self, request: Request) -> Response:  # noqa: ARG002 - a Handler
        """Respond with 404 to any other path."""
        return Response.error(404, "Not Found")


def _page(request: Request, default_size: int) -> tuple[int, int]:
    """Return number and size of the requested page. Raises ValueError if one is not a positive number."""
    try:
        number = [1, *request.integers("page")][-1]
        size = [default_size, *request.integers("itemsperpage")][-1]
    except ValueError:
        raise ValueError("The value of Page or ItemsPerPage is not valid") from None
    if number < 1 or size < 1:
        raise ValueError("Page and ItemsPerPage must be greater than 0")
    return number, size


def _paged(
    request: Request, name: str, devices: Sequence[AnyDevice], entry: Callable[[AnyDevice], JSONObject]
) -> Response:
    """Return one page of devices. By default it has all of them."""
    try:
        number, size = _page(request, EVERYTHING)
    except ValueError as error:
        return Response.error(400, str(error))
    selected = devices[(number - 1) * size : number * size]
    return Response({"page": number, "itemsPerPage": size, name: [entry(device) for device in selected]}, genuine=True)


def _timestamp(text: str) -> float:
    """Return Unix seconds, rounded to milliseconds, of a datetime in UTC. Raises ValueError if it is not valid."""
    value = datetime.fromisoformat(text)
    return round((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp(), 3)


def _asks_for_user_settings(request: Request) -> bool:
    # Tedee's documentation has both names.
    return request.flag("includeusersettings", "includeusersetting")
