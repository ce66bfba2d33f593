"""The laws of a data set."""

import math
from collections.abc import Callable

import torch

from trainables import contracts
from trainables.checking.laws import Law, Verdict, judge, require
from trainables.images import Source

NUM_SHOWN = 64
"""Images that are looked at, spread over the set."""

CPU = torch.device("cpu")
Subject = Callable[[], Source]


def check(name: str) -> list[Verdict]:
    """Check a data set by its name."""
    module = contracts.data_set(name)
    return judge(lambda: module.find, LAWS)


def _described(find: Subject) -> None:
    source = find()
    require(
        isinstance(source, Source),
        f"find returns {type(source).__name__}; expected trainables.images.Source.",
    )
    require(len(source.shape) == 3, f"shape is {source.shape}; expected (channels, height, width).")
    names, sizes = source.factor_names, source.factor_sizes
    require(len(names) == len(sizes), f"{len(names)} factor names for {len(sizes)} factor sizes.")
    if sizes and source.factors_NK is None:
        require(
            math.prod(sizes) == source.num_images,
            f"{source.num_images} images, but {math.prod(sizes)} combinations of the factors. Without `factors_NK` the images are "
            "all combinations, the last factor the fastest.",
        )


def _labelled(find: Subject) -> None:
    factors_NK = find().factors_NK
    if factors_NK is None:
        return
    source = find()
    wanted = (source.num_images, len(source.factor_sizes))
    require(factors_NK.shape == wanted, f"factors_NK has shape {factors_NK.shape}; expected {wanted}.")
    for name, size, values_N in zip(source.factor_names, source.factor_sizes, factors_NK.T, strict=True):
        low, high = values_N.min(), values_N.max()
        require(
            0 <= low <= high < size, f"factor '{name}' has values {low} to {high}; expected 0 to {size - 1}."
        )


def _shown(find: Subject) -> torch.Tensor:
    source = find()
    rows = torch.linspace(0, source.num_images - 1, NUM_SHOWN).long()
    return source.load(CPU).at(rows)


def _loads(find: Subject) -> None:
    x_NCHW, wanted = _shown(find), (NUM_SHOWN, *find().shape)
    require(x_NCHW.shape == wanted, f"images have shape {tuple(x_NCHW.shape)}; expected {wanted}.")
    require(x_NCHW.dtype == torch.float32, f"images are {x_NCHW.dtype}; expected float32.")
    low, high = x_NCHW.min(), x_NCHW.max()
    require(0 <= low <= high <= 1, f"images have values from {low:g} to {high:g}; expected 0 to 1.")


def _repeats(find: Subject) -> None:
    require(find().recipe == find().recipe, "the recipe differs the second time.")
    require(torch.equal(_shown(find), _shown(find)), "the images differ the second time.")


LAWS = (
    Law("find describes the images", _described),
    Law("factors are within their sizes", _labelled),
    Law("images have the declared shape and values in [0, 1]", _loads),
    Law("it is the same every time", _repeats),
)
