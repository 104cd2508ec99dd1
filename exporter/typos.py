"""Finds the word that a mistyped one was meant to be."""

from collections.abc import Iterable


def close_match(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the most similar of the known words; None if the similarity of each, from 0 to 1, is below `cutoff`."""
    from difflib import get_close_matches  # noqa: PLC0415  (only errors need this import)

    return next(iter(get_close_matches(word, list(known), n=1, cutoff=cutoff)), None)
