"""Which accounts of a configuration are this process's, where several share the work."""

import re
from dataclasses import dataclass
from hashlib import blake2b

from .settings import Settings


class BadShard(ValueError):
    """A shard that is not of the form i/n. The message says why."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` processes that have the same configuration, each with a part of its accounts."""

    index: int = 0
    """From 0, as a StatefulSet counts its pods."""
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read `i/n`.

        Raises:
            BadShard: it is not of that form, or i is not below n.
        """
        if not (found := re.fullmatch(r"(\d{1,4})/(\d{1,4})", text, re.ASCII)):
            raise BadShard(f"{text!r} is not of the form i/n, such as 0/3 for the first of three")
        shard = cls(int(found[1]), int(found[2]))
        if shard.index >= shard.count:
            raise BadShard(f"{text!r} is none of {shard.count}: they are counted from 0")
        return shard

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def holds(self, account: str) -> bool:
        """Whether the account of this name is in this shard.

        It is in the one that draws the highest number for it. One shard more draws for each account, too, and takes
        those for which it draws highest: one account of n moves, all of them to the new shard.
        """
        return max(range(self.count), key=lambda index: blake2b(f"{index} {account}".encode()).digest()) == self.index

    def of(self, settings: Settings) -> Settings:
        """The settings with the accounts of this shard alone; there may be none."""
        accounts = tuple(account for account in settings.accounts if self.holds(account.name))
        return settings.model_copy(update={"accounts": accounts})
