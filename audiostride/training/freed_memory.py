"""Activations on the CPU: memory that a step frees stays with the process, for the next step."""

import ctypes

# From malloc.h of glibc.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory instead of handing it back to the system, for the rest of the process.

    By default a large tensor is mapped when it is made and unmapped when it is freed, so at every step the system
    clears all its pages anew. The highest use of memory stays about the same; memory freed after it is not given back.

    Returns:
        Whether that was done: not where the C library is another one (macOS, Windows, musl).

    Source:
        mallopt(3): M_MMAP_MAX, M_TRIM_THRESHOLD.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
