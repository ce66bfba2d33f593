"""What a reader finds at the path of your own images."""

from collections.abc import Sequence
from dataclasses import dataclass

from trainables.data.readers.factors import Factors
from trainables.data.readers.preparation import Preparation


@dataclass(frozen=True, eq=False)
class Found:
    """Images that can be converted.

    Attributes:
        ways: Ways to convert them; the first that works is right.
        factors: Their ground truth, None if there is none.
        notes: What a person should know of them before training.
    """

    ways: Sequence[Preparation]
    factors: Factors | None
    notes: tuple[str, ...]
