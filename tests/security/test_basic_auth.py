"""Basic authentication: passwords are checked, users cannot be enumerated, and guessing does not block scrapes."""

import asyncio
import base64
import itertools
import threading
from collections.abc import Iterable

import bcrypt
import pytest

from exporter.secrets import Secret
from exporter.web.basic_auth import MAX_PENDING, MAX_PENDING_PER_CLIENT, BasicAuth, TooManyAttempts
from testing.program import TIMEOUT
from tests.security.web_files import HASH, PASSWORD

USERS = {"alice": Secret(HASH)}


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that were checked, in order."""
    hashes: list[bytes] = []
    check = bcrypt.checkpw

    def recording(password: bytes, hashed: bytes) -> bool:
        hashes.append(hashed)
        return check(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", recording)
    return hashes


def authenticate(*authorizations: str, users: dict[str, Secret] = USERS) -> list[bool]:
    """Return whether each header is accepted, one after the other."""

    async def check() -> list[bool]:
        basic_auth = BasicAuth()
        return [await basic_auth.authenticate(users, each, "192.0.2.1") for each in authorizations]

    return asyncio.run(check())


def test_correct_password_is_accepted() -> None:
    assert authenticate(basic("alice", PASSWORD)) == [True]


@pytest.mark.parametrize(
    "authorization",
    [
        basic("alice", "wrong"),
        basic("alice", ""),
        basic("alice", PASSWORD + " "),
        basic("Alice", PASSWORD),
        basic("", PASSWORD),
        basic("bob", PASSWORD),
        basic("alice", HASH),
        basic("alice", "x" * 10_000),
        basic("alice", "\0"),
        basic("alice", "pässwörd"),
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic " + base64.b64encode(b"alice").decode(),
        "Basic " + base64.b64encode(b"alice:\xff\xfe").decode(),
        "Bearer " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode(),
        "Digest username=alice",
        f"alice:{PASSWORD}",
        "",
    ],
    ids=itertools.count(),  # the hash differs between processes
)
def test_other_credentials_are_rejected(authorization: str) -> None:
    assert authenticate(authorization) == [False]


@pytest.mark.parametrize("prefix", ["2a", "2b", "2y"])
def test_all_bcrypt_prefixes_are_accepted(prefix: str) -> None:
    users = {"alice": Secret(HASH.replace("$2b$", f"${prefix}$"))}
    assert authenticate(basic("alice", PASSWORD), basic("alice", "wrong"), users=users) == [True, False]


def test_password_is_truncated_to_72_bytes() -> None:
    users = {"alice": Secret(bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode())}
    assert authenticate(basic("alice", "x" * 100), basic("alice", "x" * 71), users=users) == [True, False]


def test_correct_password_is_checked_once(checked: list[bytes]) -> None:
    assert authenticate(*[basic("alice", PASSWORD)] * 5) == [True] * 5
    assert len(checked) == 1


def test_wrong_password_is_checked_each_time(checked: list[bytes]) -> None:
    assert authenticate(*[basic("alice", "wrong"), basic("mallory", "wrong")] * 3) == [False] * 6
    assert len(checked) == 6


def test_unknown_user_costs_as_much_as_known_user(checked: list[bytes]) -> None:
    hashes = {name: bcrypt.hashpw(b"x", bcrypt.gensalt(cost)).decode() for name, cost in {"a": 4, "b": 5}.items()}
    users = {name: Secret(hashed) for name, hashed in hashes.items()}
    strangers = [f"stranger-{number}" for number in range(40)]
    assert not any(authenticate(*(basic(name, "x") for name in strangers * 2), users=users))
    assert {each.decode() for each in checked} == set(hashes.values()), "both costs are used"
    assert checked[:40] == checked[40:], "one name always has the same"


def test_password_of_another_user_is_rejected() -> None:
    assert authenticate(basic("alice", PASSWORD), basic("mallory", PASSWORD), basic("mallory", PASSWORD)) == [
        True,
        False,
        False,
    ]


def test_changed_hash_requires_new_password(checked: list[bytes]) -> None:
    async def check() -> list[bool]:
        basic_auth = BasicAuth()
        new = {"alice": Secret(bcrypt.hashpw(b"new", bcrypt.gensalt(4)).decode())}
        return [
            await basic_auth.authenticate(USERS, basic("alice", PASSWORD), "c"),
            await basic_auth.authenticate(new, basic("alice", PASSWORD), "c"),
            await basic_auth.authenticate(new, basic("alice", "new"), "c"),
            await basic_auth.authenticate({"bob": USERS["alice"]}, basic("alice", PASSWORD), "c"),
        ]

    assert asyncio.run(check()) == [True, False, True, False]


def test_no_password_is_stored() -> None:
    async def check() -> BasicAuth:
        basic_auth = BasicAuth()
        assert await basic_auth.authenticate(USERS, basic("alice", PASSWORD), "c")
        return basic_auth

    assert PASSWORD not in repr(vars(asyncio.run(check())))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Checks of passwords last until this is set."""
    done = threading.Event()

    def check(password: bytes, _hashed: bytes) -> bool:
        assert done.wait(TIMEOUT)
        return password == PASSWORD.encode()

    monkeypatch.setattr(bcrypt, "checkpw", check)
    return done


def test_known_client_does_not_wait_for_guessing_clients(slow: threading.Event) -> None:
    async def check() -> bool:
        basic_auth = BasicAuth()
        slow.set()
        assert await basic_auth.authenticate(USERS, basic("alice", PASSWORD), "prometheus")
        slow.clear()
        guesses = [
            asyncio.create_task(basic_auth.authenticate(USERS, basic("alice", "x"), "mallory")) for _ in range(5)
        ]
        await asyncio.sleep(0)
        at_once = await asyncio.wait_for(
            basic_auth.authenticate(USERS, basic("alice", PASSWORD), "prometheus"), TIMEOUT
        )
        slow.set()
        assert await asyncio.gather(*guesses) == [False] * 5
        return at_once

    assert asyncio.run(check())


def test_concurrent_guesses_are_limited_per_client(slow: threading.Event) -> None:
    async def check() -> None:
        basic_auth = BasicAuth()

        async def guess(client: str, word: str = "x") -> bool:
            return await basic_auth.authenticate(USERS, basic("alice", word), client)

        waiting = [asyncio.create_task(guess("mallory")) for _ in range(MAX_PENDING_PER_CLIENT)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyAttempts):
            await guess("mallory")
        other = asyncio.create_task(guess("prometheus", PASSWORD))
        await asyncio.sleep(0)
        slow.set()
        assert await other
        assert await asyncio.gather(*waiting) == [False] * MAX_PENDING_PER_CLIENT
        assert not await guess("mallory"), "it may try again later"

    asyncio.run(check())


async def check_limit(clients: Iterable[str], further_client: str, slow: threading.Event) -> None:
    """Send a password from each client, and check that one from a further client is refused."""
    basic_auth = BasicAuth()
    pending = [asyncio.create_task(basic_auth.authenticate(USERS, basic("alice", "x"), each)) for each in clients]
    await asyncio.sleep(0)
    with pytest.raises(TooManyAttempts):
        await basic_auth.authenticate(USERS, basic("alice", "x"), further_client)
    slow.set()
    await asyncio.gather(*pending)


def test_concurrent_checks_are_limited_for_all_clients(slow: threading.Event) -> None:
    clients = [f"192.0.2.{number}" for number in range(MAX_PENDING)]
    asyncio.run(check_limit(clients, "198.51.100.1", slow))


def test_ipv6_clients_are_limited_per_64_prefix(slow: threading.Event) -> None:
    clients = [f"2001:db8::{number:x}%eth0" for number in range(MAX_PENDING_PER_CLIENT)]
    asyncio.run(check_limit(clients, "2001:db8::ffff", slow))


def test_password_of_disconnected_client_is_not_checked(checked: list[bytes]) -> None:
    async def check() -> bool:
        return await BasicAuth().authenticate(USERS, basic("alice", PASSWORD), "c", is_disconnected=lambda: True)

    assert not asyncio.run(check())
    assert checked == []
