"""Lost if these fail: normal responses, or the whole process, because of huge ones."""

import pytest

from exporter.tedee import bodies as module
from exporter.tedee.bodies import LARGE, Bodies, BodyTooLarge


def test_largest_body_is_dropped_and_others_continue() -> None:
    bodies = Bodies(max_bytes=100)
    with bodies.body() as largest, bodies.body() as smaller, bodies.body() as smallest:
        largest.append(b"a" * 60)
        smaller.append(b"b" * 30)
        smallest.append(b"c" * 10)
        smallest.append(b"c" * 10)
        smaller.append(b"b" * 30)
        with pytest.raises(BodyTooLarge, match=r"over 60 bytes, the largest when all .* took more than 100 bytes"):
            largest.append(b"a")
        assert [len(each.content) for each in (largest, smaller, smallest)] == [0, 60, 20]


def test_body_that_exceeds_the_limit_alone_is_dropped() -> None:
    with Bodies(max_bytes=100).body() as body, pytest.raises(BodyTooLarge):
        body.append(b"a" * 101)


def test_body_that_is_read_is_not_dropped() -> None:
    bodies = Bodies(max_bytes=100)
    with bodies.body() as being_read, bodies.body() as other:
        being_read.append(b"a" * 60)
        with being_read.reading():
            with pytest.raises(BodyTooLarge):
                other.append(b"b" * 50)
            assert being_read.content == b"a" * 60


def test_dropped_body_is_not_read() -> None:
    bodies = Bodies(max_bytes=100)
    with bodies.body() as largest, bodies.body() as other:
        largest.append(b"a" * 60)
        other.append(b"b" * 50)
        with pytest.raises(BodyTooLarge), largest.reading():
            pass


def test_memory_of_ended_body_is_free() -> None:
    bodies = Bodies(max_bytes=100)
    for _ in range(3):
        with bodies.body() as body:
            body.append(b"a" * 100)


def test_one_body_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 100)
    with Bodies().body() as body:
        body.append(b"a" * 100)
        with pytest.raises(BodyTooLarge, match="a response of over 100 bytes"):
            body.append(b"a")


@pytest.mark.parametrize(("size", "alone"), [(LARGE, False), (LARGE + 1, True)])
def test_large_bodies_are_read_one_at_a_time(size: int, alone: bool) -> None:
    bodies = Bodies()
    with bodies.body() as body:
        body.append(b"a" * size)
        with body.reading():
            assert bodies.large_reader.locked() is alone
    assert not bodies.large_reader.locked()
