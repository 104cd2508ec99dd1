"""Rounds of measurements: their order, their number, and the ratios of their results."""

import pytest

from bench.rounds import LEAST, MOST, Comparison, Ratio

OURS, PEER = "exporter", "peer"


def comparison(*ratios: float, least: int = LEAST) -> Comparison[float]:
    """Return rounds in which the exporter takes that many times as long as the peer."""
    compared: Comparison[float] = Comparison((OURS, PEER), float, least=least)
    for ratio in ratios:
        compared.add({OURS: 2 * ratio, PEER: 2.0})
    return compared


def test_ratio_is_computed_in_each_round() -> None:
    compared = comparison()
    compared.add({OURS: 1.0, PEER: 2.0})
    compared.add({OURS: 30.0, PEER: 10.0})
    assert compared.ratio(OURS, PEER).rounds == [0.5, 3.0]
    assert compared.ratio(PEER, OURS, lambda seconds: seconds**2).rounds == [4.0, 1 / 9]
    assert compared.median(OURS) == 15.5


def test_order_alternates() -> None:
    compared = comparison()
    orders = []
    for _ in range(4):
        orders.append(compared.order())
        compared.add(dict.fromkeys(compared.order(), 1.0))
    assert orders == [[OURS, PEER], [PEER, OURS]] * 2


@pytest.mark.parametrize(
    ("rounds", "agrees"),
    [
        ([1.0], False),
        ([1.0, 1.2], True),
        ([1.0, 1.21], False),
        ([1.21, 1.0], False),
        ([1.0, 5.0, 1.0, 1.1, 0.1, 1.1], True),
        ([1.0, 1.0, 1.5, 1.5], False),
    ],
)
def test_halves_agree_within_a_fifth(rounds: list[float], agrees: bool) -> None:
    assert Ratio(rounds).agrees == agrees


def test_report_has_median_spread_rounds_and_agreement() -> None:
    assert str(Ratio([1.5, 1.25, 1.5, 1.5])) == "1.50 (1.25 to 1.50) in 4 rounds"
    assert str(Ratio([0.01, 2000])) == ("1,000 (0.010 to 2,000) in 2 rounds, whose halves differ by more than a fifth")


def test_rounds_end_when_halves_agree() -> None:
    assert not comparison(*[1.0] * (LEAST - 1)).is_complete()
    assert comparison(*[1.0] * LEAST).is_complete()
    assert comparison(1.0, 1.0, least=2).is_complete()


def test_rounds_that_differ_end_at_the_highest_number() -> None:
    growing = [float(2**number) for number in range(MOST)]
    assert not comparison(*growing[:-1]).is_complete()
    assert comparison(*growing).is_complete()


def test_all_peers_must_agree() -> None:
    compared: Comparison[float] = Comparison((OURS, PEER, "other"), float)
    for number in range(LEAST):
        compared.add({OURS: 1.0, PEER: 1.0, "other": 2.0**number})
    assert not compared.is_complete()
