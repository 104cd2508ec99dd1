"""Memory limits of response bodies: a huge response fails alone."""

import pytest

from exporter.tedee.bodies import LARGE_BODY_BYTES, Bodies, BodyTooLarge


def test_largest_body_is_dropped_and_others_continue() -> None:
    bodies = Bodies(max_bytes=100)
    with bodies.body() as largest, bodies.body() as smaller, bodies.body() as smallest:
        largest.append(b"a" * 60)
        smaller.append(b"b" * 30)
        smallest.append(b"c" * 10)
        smallest.append(b"c" * 10)
        smaller.append(b"b" * 30)
        with pytest.raises(BodyTooLarge, match=r"over 60 bytes and was the largest .* exceeded 100 bytes"):
            largest.append(b"a")
        assert [len(each.content) for each in (largest, smaller, smallest)] == [0, 60, 20]


def test_body_larger_than_total_limit_is_dropped() -> None:
    with Bodies(max_bytes=100).body() as body, pytest.raises(BodyTooLarge):
        body.append(b"a" * 101)


def test_pinned_body_is_not_dropped() -> None:
    bodies = Bodies(max_bytes=100)
    with bodies.body() as is_used, bodies.body() as other:
        is_used.append(b"a" * 60)
        with is_used.pinned():
            with pytest.raises(BodyTooLarge):
                other.append(b"b" * 50)
            assert is_used.content == b"a" * 60


def test_dropped_body_cannot_be_pinned() -> None:
    bodies = Bodies(max_bytes=100)
    with bodies.body() as largest, bodies.body() as other:
        largest.append(b"a" * 60)
        other.append(b"b" * 50)
        with pytest.raises(BodyTooLarge), largest.pinned():
            pass


def test_memory_is_freed_when_body_ends() -> None:
    bodies = Bodies(max_bytes=100)
    for _ in range(3):
        with bodies.body() as body:
            body.append(b"a" * 100)


def test_single_body_is_limited() -> None:
    with Bodies().body(max_bytes=100) as body:
        body.append(b"a" * 100)
        with pytest.raises(BodyTooLarge, match="the response exceeds 100 bytes"):
            body.append(b"a")


@pytest.mark.parametrize(("size", "alone"), [(LARGE_BODY_BYTES, False), (LARGE_BODY_BYTES + 1, True)])
def test_large_bodies_are_parsed_one_at_a_time(size: int, alone: bool) -> None:
    bodies = Bodies()
    with bodies.body() as body:
        body.append(b"a" * size)
        with body.pinned():
            assert bodies.large_body_lock.locked() is alone
    assert not bodies.large_body_lock.locked()
