"""Shards: processes that divide the accounts of one configuration."""

import re
from dataclasses import dataclass
from hashlib import blake2b

from msgspec.structs import replace

from .settings import Settings


class BadShard(ValueError):
    """The text is not a shard. The message has the reason."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` processes with the same configuration. Each account belongs to exactly one of them."""

    index: int = 0
    """Zero-based, as the pods of a StatefulSet."""
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse `i/n`.

        Raises:
            BadShard: The text is not of that form, or i is not less than n.
        """
        if not (found := re.fullmatch(r"(\d{1,4})/(\d{1,4})", text, re.ASCII)):
            raise BadShard(f"{text!r} is not of the form i/n, such as 0/3 for the first of three")
        shard = cls(int(found[1]), int(found[2]))
        if shard.index >= shard.count:
            raise BadShard(f"{text!r} is out of range: the first of {shard.count} shards is 0/{shard.count}")
        return shard

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def contains(self, account: str) -> bool:
        """Return True if the account with this name belongs to this shard.

        Rendezvous hashing: each shard has a hash for the account, and the highest hash wins. Adding a shard moves about
        1/n of the accounts, all of them to the new shard.
        """
        return max(range(self.count), key=lambda index: blake2b(f"{index} {account}".encode()).digest()) == self.index

    def select(self, settings: Settings) -> Settings:
        """Return the settings with only the accounts of this shard. There may be none."""
        accounts = tuple(account for account in settings.accounts if self.contains(account.name))
        return replace(settings, accounts=accounts)
