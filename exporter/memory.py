"""Returns freed memory to the system.

By default glibc keeps the memory of large responses: after it freed the first, it raises the size from which it maps
blocks one by one. It also keeps the space between objects that stay. Other C libraries are left as they are.
"""

import contextlib
import ctypes

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
"""From <malloc.h>."""


def configure() -> None:
    """Configure glibc to return large blocks at once. Called before any thread starts."""
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, 2**17)
        # Each heap of the C library takes a part of a MiB, and threads have their own by default.
        mallopt(M_ARENA_MAX, 2)


def return_freed() -> None:
    """Return the space between objects that stay. It takes 0.1 ms with 10 locks, and 1 ms with 10,000."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
