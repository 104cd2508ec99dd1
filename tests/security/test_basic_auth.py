"""Lost if these fail: nobody without the password gets in, nobody learns who has one, and guessing stops no scrape."""

import asyncio
import base64
import itertools
import threading

import bcrypt
import pytest

from exporter.secrets import Secret
from exporter.web.basic_auth import MAX_WAITING, MAX_WAITING_ALTOGETHER, BasicAuth, TooManyAttempts
from tests.program import TIMEOUT
from tests.security.web_files import HASH, PASSWORD

USERS = {"alice": Secret(HASH)}


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that were checked, in order: what takes the time."""
    hashes: list[bytes] = []
    check = bcrypt.checkpw

    def noted(password: bytes, hashed: bytes) -> bool:
        hashes.append(hashed)
        return check(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", noted)
    return hashes


def admitted(*authorizations: str, users: dict[str, Secret] = USERS) -> list[bool]:
    """Whether they are let in, one after the other."""

    async def ask() -> list[bool]:
        passwords = BasicAuth()
        return [await passwords.authenticate(users, each, "192.0.2.1") for each in authorizations]

    return asyncio.run(ask())


def test_the_right_password_is_let_in() -> None:
    assert admitted(basic("alice", PASSWORD)) == [True]


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
    ids=itertools.count(),  # the hash is another in each process
)
def test_anything_else_is_not(authorization: str) -> None:
    assert admitted(authorization) == [False]


@pytest.mark.parametrize("prefix", ["2a", "2b", "2y"])
def test_a_hash_of_any_tool_will_do(prefix: str) -> None:
    users = {"alice": Secret(HASH.replace("$2b$", f"${prefix}$"))}
    assert admitted(basic("alice", PASSWORD), basic("alice", "wrong"), users=users) == [True, False]


def test_a_password_longer_than_bcrypt_reads_works_as_with_other_servers() -> None:
    users = {"alice": Secret(bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode())}
    assert admitted(basic("alice", "x" * 100), basic("alice", "x" * 71), users=users) == [True, False]


def test_what_was_right_is_checked_once(checked: list[bytes]) -> None:
    assert admitted(*[basic("alice", PASSWORD)] * 5) == [True] * 5
    assert len(checked) == 1


def test_what_was_wrong_is_checked_each_time_whether_there_is_such_a_user_or_not(checked: list[bytes]) -> None:
    assert admitted(*[basic("alice", "wrong"), basic("mallory", "wrong")] * 3) == [False] * 6
    assert len(checked) == 6


def test_an_unknown_user_costs_what_a_known_one_costs(checked: list[bytes]) -> None:
    hashes = {name: bcrypt.hashpw(b"x", bcrypt.gensalt(cost)).decode() for name, cost in {"a": 4, "b": 5}.items()}
    users = {name: Secret(hashed) for name, hashed in hashes.items()}
    strangers = [f"stranger-{number}" for number in range(40)]
    assert not any(admitted(*(basic(name, "x") for name in strangers * 2), users=users))
    assert {each.decode() for each in checked} == set(hashes.values()), "both costs occur"
    assert checked[:40] == checked[40:], "and for one name always the same"


def test_a_password_that_is_right_for_somebody_else_lets_no_stranger_in() -> None:
    assert admitted(basic("alice", PASSWORD), basic("mallory", PASSWORD), basic("mallory", PASSWORD)) == [
        True,
        False,
        False,
    ]


def test_a_user_whose_hash_has_changed_needs_the_new_password(checked: list[bytes]) -> None:
    async def ask() -> list[bool]:
        passwords = BasicAuth()
        new = {"alice": Secret(bcrypt.hashpw(b"new", bcrypt.gensalt(4)).decode())}
        return [
            await passwords.authenticate(USERS, basic("alice", PASSWORD), "c"),
            await passwords.authenticate(new, basic("alice", PASSWORD), "c"),
            await passwords.authenticate(new, basic("alice", "new"), "c"),
            await passwords.authenticate({"bob": USERS["alice"]}, basic("alice", PASSWORD), "c"),
        ]

    assert asyncio.run(ask()) == [True, False, True, False]


def test_no_password_is_kept() -> None:
    async def ask() -> BasicAuth:
        passwords = BasicAuth()
        assert await passwords.authenticate(USERS, basic("alice", PASSWORD), "c")
        return passwords

    assert PASSWORD not in repr(vars(asyncio.run(ask())))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Checks last until this is set."""
    done = threading.Event()

    def check(password: bytes, _hashed: bytes) -> bool:
        assert done.wait(TIMEOUT)
        return password == PASSWORD.encode()

    monkeypatch.setattr(bcrypt, "checkpw", check)
    return done


def test_who_was_right_before_does_not_wait_for_those_who_guess(slow: threading.Event) -> None:
    async def ask() -> bool:
        passwords = BasicAuth()
        slow.set()
        assert await passwords.authenticate(USERS, basic("alice", PASSWORD), "prometheus")
        slow.clear()
        guesses = [asyncio.create_task(passwords.authenticate(USERS, basic("alice", "x"), "mallory")) for _ in range(5)]
        await asyncio.sleep(0)
        at_once = await asyncio.wait_for(passwords.authenticate(USERS, basic("alice", PASSWORD), "prometheus"), TIMEOUT)
        slow.set()
        assert await asyncio.gather(*guesses) == [False] * 5
        return at_once

    assert asyncio.run(ask())


def test_who_guesses_too_much_at_once_is_sent_away_and_nobody_else_is(slow: threading.Event) -> None:
    async def ask() -> None:
        passwords = BasicAuth()

        async def guess(client: str, word: str = "x") -> bool:
            return await passwords.authenticate(USERS, basic("alice", word), client)

        waiting = [asyncio.create_task(guess("mallory")) for _ in range(MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyAttempts):
            await guess("mallory")
        other = asyncio.create_task(guess("prometheus", PASSWORD))
        await asyncio.sleep(0)
        slow.set()
        assert await other
        assert await asyncio.gather(*waiting) == [False] * MAX_WAITING
        assert not await guess("mallory"), "later it may try again"

    asyncio.run(ask())


def test_all_together_no_more_wait_than_are_checked_within_a_scrapes_time_out(slow: threading.Event) -> None:
    async def ask() -> None:
        passwords = BasicAuth()
        waiting = [
            asyncio.create_task(passwords.authenticate(USERS, basic("alice", "x"), f"192.0.2.{number}"))
            for number in range(MAX_WAITING_ALTOGETHER)
        ]
        await asyncio.sleep(0)
        with pytest.raises(TooManyAttempts):
            await passwords.authenticate(USERS, basic("alice", "x"), "198.51.100.1")
        slow.set()
        await asyncio.gather(*waiting)

    asyncio.run(ask())


def test_who_has_a_whole_network_counts_once(slow: threading.Event) -> None:
    async def ask() -> None:
        passwords = BasicAuth()
        waiting = [
            asyncio.create_task(passwords.authenticate(USERS, basic("alice", "x"), f"2001:db8::{number:x}%eth0"))
            for number in range(MAX_WAITING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(TooManyAttempts):
            await passwords.authenticate(USERS, basic("alice", "x"), "2001:db8::ffff")
        slow.set()
        await asyncio.gather(*waiting)

    asyncio.run(ask())


def test_a_password_whose_sender_has_left_is_not_checked(checked: list[bytes]) -> None:
    async def ask() -> bool:
        return await BasicAuth().authenticate(USERS, basic("alice", PASSWORD), "c", gone=lambda: True)

    assert not asyncio.run(ask())
    assert checked == []
