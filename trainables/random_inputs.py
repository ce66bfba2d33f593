"""The random inputs that one step of a model needs, per run; the engine generates them and passes them to `update`.

The name of an input is the name of its random stream, so models that use the same name get the same numbers.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageBatch:
    """`size` images sampled uniformly with replacement from the data set: x, (R, B, C, H, W)."""

    size: int


@dataclass(frozen=True)
class Normal:
    """Standard normal numbers, (R, *shape)."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Uniform:
    """Numbers uniform in (0, 1), (R, *shape)."""

    shape: tuple[int, ...]


@dataclass(frozen=True)
class Integers:
    """`count` numbers uniform in 0 .. high - 1, int64 (R, count)."""

    high: int
    count: int


@dataclass(frozen=True)
class Permutations:
    """`count` independent permutations of 0 .. size - 1, int64 (R, count, size)."""

    count: int
    size: int


RandomInput = ImageBatch | Normal | Uniform | Integers | Permutations
