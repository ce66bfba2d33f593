"""The products alone of a pack's step: what a step would cost if it consisted of matrix products and convolutions only.

This is the ceiling of a pack: all else (activations, random numbers, Adam, Python) can at best be made to cost nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.engine import Pack

PRODUCTS = {"addmm", "baddbmm", "bmm", "convolution", "convolution_backward", "mm"}
"""Names of the operations that count."""


class Recorder(TorchDispatchMode):
    """Notes the products that are computed, with their arguments.

    Attributes:
        calls: Functions that compute them again.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute an operation, and note it if it is a product."""
        kwargs = kwargs or {}
        if function._overloadpacket.__name__ in PRODUCTS:  # type: ignore[attr-defined]
            self.calls.append(lambda: function(*args, **kwargs))
        return function(*args, **kwargs)


def products_of(pack: Pack) -> Callable[[int], None]:
    """Return a function that computes the products of this many steps of a pack, on the arrays of one of them."""
    with Recorder() as recorder:
        pack.advance(1)

    @torch.no_grad()
    def advance(num_steps: int) -> None:
        for _ in range(num_steps):
            for call in recorder.calls:
                call()

    return advance
