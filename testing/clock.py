"""A clock that tests control."""


class FakeClock:
    """Wall and monotonic time that change only by `advance`, `set_wall` and `reboot`."""

    def __init__(self, wall: float = 1_800_000_000.0, monotonic: float = 1_000.0) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._boot = "boot-1"

    def wall(self) -> float:
        """Return Unix seconds."""
        return self._wall

    def monotonic(self) -> float:
        """Return seconds since the boot."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        assert seconds >= 0, "monotonic time does not go back"
        self._wall += seconds
        self._monotonic += seconds

    def set_wall(self, wall: float) -> None:
        """Set the wall clock, as NTP or an administrator may."""
        self._wall = wall

    def boot(self) -> str:
        """Return the identifier of the boot."""
        return self._boot

    def reboot(self, seconds: float = 30.0) -> None:
        """Start another boot, with a new monotonic clock, after some seconds."""
        self._wall += seconds
        self._monotonic = 5.0
        self._boot += "-and-another"
