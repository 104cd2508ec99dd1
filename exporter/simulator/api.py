"""The endpoints of Tedee's API. Each is a function from a request to a response."""

from collections.abc import Callable, Sequence
from functools import wraps

from .account import Account
from .request import Request
from .response import Response
from .wire import Version, bridge_entry, lock_entry, sync_entry
from .world import World

Handler = Callable[[Request], Response]
Resource = Callable[["Api", Request, Account, Version], Response]


def authorized(resource: Resource) -> Callable[["Api", Request], Response]:
    """Reject a request unless it is a GET, in a supported version, with a credential that may read devices."""

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
        if not credential.may_read():
            return Response.error(403, "Forbidden: scope Device.Read is missing")
        return resource(api, request, account, version)

    return respond


class Api:
    """The endpoints of the cloud."""

    def __init__(
        self, world: World, versions: Sequence[str], *, default_page: int, largest_page: int, smallest_page: int
    ) -> None:
        # Tedee documents `Page` and `ItemsPerPage` without their bounds. Assumption: pages are numbered from 1, and
        # their size has a default and a maximum.
        self.world = world
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

    @authorized
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

    @authorized
    def locks(self, request: Request, account: Account, version: Version) -> Response:
        """Respond to `/my/lock` with states and details of the locks, in pages."""
        try:
            page = [1, *request.integers("page")][-1]
            size = [self._default_page, *request.integers("itemsperpage")][-1]
        except ValueError:
            return Response.error(400, "The value of Page or ItemsPerPage is not valid")
        if page < 1 or size < 1:
            return Response.error(400, "Page and ItemsPerPage must be greater than 0")
        size = max(self._smallest_page, min(size, self._largest_page))
        now = self.world.now()
        locks = account.locks[(page - 1) * size : page * size]
        return Response([lock_entry(lock, now, version) for lock in locks], genuine=True)

    @authorized
    def details(self, request: Request, account: Account, version: Version) -> Response:  # noqa: ARG002 - a Resource
        """Respond to `/my/device/details` with all devices in one response."""
        now = self.world.now()
        return Response(
            {
                "bridges": [bridge_entry(bridge, now) for bridge in account.bridges],
                "locks": [lock_entry(lock, now, version) for lock in account.locks],
                "keypads": [],
                "gates": [],
                "dryContacts": [],
            },
            genuine=True,
        )

    def unknown(self, request: Request) -> Response:  # noqa: ARG002 - a Handler
        """Respond with 404 to any other path."""
        return Response.error(404, "Not Found")
