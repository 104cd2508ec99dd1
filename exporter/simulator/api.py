"""The endpoints of Tedee's API, each a function from a request to an answer."""

from collections.abc import Callable, Sequence
from functools import wraps

from .account import Account
from .request import Request
from .response import Answer
from .wire import Version, bridge_entry, lock_entry, sync_entry
from .world import World

Respond = Callable[[Request], Answer]
Resource = Callable[["Api", Request, Account, Version], Answer]


def guarded(resource: Resource) -> Callable[["Api", Request], Answer]:
    """Let a resource be read by GET alone, in a version that is spoken, with a credential that may."""

    @wraps(resource)
    def respond(api: "Api", request: Request) -> Answer:
        version = api.version(request.version)
        if version is None:
            return Answer.error(404, f"API version {request.version} is not supported")
        if request.method != "GET":
            return Answer.error(405, f"{request.method} is not allowed", headers={"Allow": "GET"})
        account, credential = request.account, request.credential
        if account is None or credential is None or not credential.valid(api.world.now()):
            return Answer.error(401, "Unauthorized")
        if not credential.may_read():
            return Answer.error(403, "Forbidden: scope Device.Read is missing")
        return resource(api, request, account, version)

    return respond


class Api:
    """What the cloud says of its world, when nothing goes wrong with the saying."""

    def __init__(
        self, world: World, versions: Sequence[str], *, default_page: int, largest_page: int, smallest_page: int
    ) -> None:
        # The documentation names `Page` and `ItemsPerPage` and not their bounds. Assumed: pages count from 1, are
        # small unless asked to be larger, and there is an end to how large one may ask them to be.
        self.world = world
        self._versions = tuple(Version(version.lower()) for version in versions)
        self._default_page = default_page
        self._largest_page = largest_page
        self._smallest_page = smallest_page

    @property
    def supported_versions(self) -> str:
        """The versions spoken, as the header has them: `1.34, 1.35, 1.36, 37`."""
        return ", ".join(version.removeprefix("v") for version in self._versions)

    def version(self, written: str) -> Version | None:
        """The version of the path, if it is spoken."""
        return next((version for version in self._versions if version == written.lower()), None)

    def retire(self, retired: str) -> None:
        """Speak that version no more."""
        self._versions = tuple(version for version in self._versions if version != retired.lower())

    @guarded
    def sync(self, request: Request, account: Account, version: Version) -> Answer:
        """`/my/lock/sync`: the states of all locks, or of those named by `id`."""
        try:
            ids = request.numbers("id")
        except ValueError:
            return Answer.error(400, "The value of id is not valid")
        locks = {lock.id: lock for lock in account.locks}
        unknown = [lock_id for lock_id in ids if lock_id not in locks]
        if unknown:
            return Answer.error(404, f"Lock {unknown[0]} was not found")
        now = self.world.now()
        chosen = (locks[lock_id] for lock_id in dict.fromkeys(ids)) if ids else locks.values()
        return Answer([sync_entry(lock, now, version) for lock in chosen], genuine=True)

    @guarded
    def locks(self, request: Request, account: Account, version: Version) -> Answer:
        """`/my/lock`: everything about the locks, by pages."""
        try:
            page = [1, *request.numbers("page")][-1]
            size = [self._default_page, *request.numbers("itemsperpage")][-1]
        except ValueError:
            return Answer.error(400, "The value of Page or ItemsPerPage is not valid")
        if page < 1 or size < 1:
            return Answer.error(400, "Page and ItemsPerPage must be greater than 0")
        size = max(self._smallest_page, min(size, self._largest_page))
        now = self.world.now()
        locks = account.locks[(page - 1) * size : page * size]
        return Answer([lock_entry(lock, now, version) for lock in locks], genuine=True)

    @guarded
    def details(self, request: Request, account: Account, version: Version) -> Answer:  # noqa: ARG002 - a Resource
        """`/my/device/details`: all devices in one answer."""
        now = self.world.now()
        return Answer(
            {
                "bridges": [bridge_entry(bridge, now) for bridge in account.bridges],
                "locks": [lock_entry(lock, now, version) for lock in account.locks],
                "keypads": [],
                "gates": [],
                "dryContacts": [],
            },
            genuine=True,
        )

    def unknown(self, request: Request) -> Answer:  # noqa: ARG002 - an endpoint like the others
        """Any other path."""
        return Answer.error(404, "Not Found")
