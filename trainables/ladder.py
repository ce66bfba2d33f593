"""How many runs a pack computes: its own, and ghosts that fill it up to a size that the device's arithmetic knows.

On a CPU a run's bits do not depend on the size of its pack, only a lone run has other kernels. On CUDA the libraries pick
kernels by the number of matrices, so packs come in a few sizes: halving, added seeds and memory then change a run's
numerics class seldom, and ghosts are less than half of a pack that is larger than the smallest.
"""

MIN_SIZE = 2
"""Runs that are computed at least."""

LADDER = (8, 16, 32, 64, 128)
"""Sizes of packs on CUDA."""

SMALL = (4, MIN_SIZE)
"""Sizes where memory does not hold the smallest of these."""


def rung(num_runs: int) -> int:
    """The smallest size of the ladder that holds so many runs; above it, multiples of the largest."""
    for size in LADDER:
        if num_runs <= size:
            return size
    return -(-num_runs // LADDER[-1]) * LADDER[-1]


def largest(num_runs: float) -> int:
    """The largest size that memory for so many runs holds, small ones included; the least where it holds none."""
    return max((size for size in (*SMALL, *LADDER) if size <= num_runs), default=MIN_SIZE)


def stack_size(device: str, num_runs: int) -> int:
    """Runs that a pack of so many computes, ghosts included.

    Args:
        device: `cpu` or `cuda`.
        num_runs: Runs that are wanted.
    """
    return max(MIN_SIZE, num_runs) if device == "cpu" else rung(num_runs)
