"""Pack sizes: how many runs a pack computes, ghosts included.

On a CPU a run's bits do not depend on the size of its pack, except that a lone run uses other kernels. On CUDA the libraries pick
kernels by the number of matrices, so packs come in a few sizes: halving, added seeds and memory then rarely change a run's
numerics class, and ghosts are less than half of a pack that is larger than the smallest.
"""

MIN_SIZE = 2
"""Fewest runs that a pack computes."""

LADDER = (8, 16, 32, 64, 128)
"""Sizes of packs on CUDA."""

SMALL = (4, MIN_SIZE)
"""Sizes of packs on CUDA if the smallest of these does not fit into memory."""


def rung(num_runs: int) -> int:
    """The smallest size of the ladder for this many runs; above the ladder, a multiple of the largest."""
    for size in LADDER:
        if num_runs <= size:
            return size
    return -(-num_runs // LADDER[-1]) * LADDER[-1]


def largest(num_runs: float) -> int:
    """The largest size, small ones included, that fits into memory for this many runs; the smallest if none fits."""
    return max((size for size in (*SMALL, *LADDER) if size <= num_runs), default=MIN_SIZE)


def stack_size(device: str, num_runs: int) -> int:
    """The number of runs that a pack computes, ghosts included.

    Args:
        device: `cpu` or `cuda`.
        num_runs: Runs of the pack, without ghosts.
    """
    return max(MIN_SIZE, num_runs) if device == "cpu" else rung(num_runs)
