"""What a small set of images is too small for, found before training: the metrics of codes that are not yet trained."""

import math
from collections.abc import Sequence

import torch

from trainables import evaluation, scoring
from trainables.engine import Pack, ResolvedRun
from trainables.errors import InputError
from trainables.images import Source

MAX_IMAGES = 1024
"""Most images that are tried: seconds with the paper's networks. Larger sets have more images than any model has codes."""

IMAGES_PER_CODE = 10
"""Images for each dimension of a code below which chance is a large part of scores: independent codes have a `gaussian_tc` of
D (D - 1) / (4 N), which is .2 nats for 10 codes on 100 images."""


def is_small(source: Source) -> bool:
    """Whether a set has so few images that metrics are tried on it."""
    return source.num_images <= MAX_IMAGES


def notes(run: ResolvedRun, metrics: Sequence[str]) -> list[str]:
    """What a person should know of these metrics on the images of a run before training.

    Args:
        run: The run, whose model is built and whose images are loaded on the CPU.
        metrics: Entries of `trainables.metrics`.

    Raises:
        InputError: A metric cannot be computed on these images.
    """
    num_images = run.source.num_images
    if not is_small(run.source):
        return []
    (encoding,) = evaluation.encodings(Pack([run], run.source.load(torch.device("cpu"))))
    try:
        values = scoring.scores(encoding, metrics)
    except InputError as error:
        first = str(error).partition("\n")[0]
        raise InputError(
            f"{first}\nThe set has {num_images} images: add more for each value of a factor, or leave the factors out."
        ) from None
    num_codes = len(encoding.kl_D)
    where = f"on {num_images} images with {num_codes} codes"
    found = [
        f"{name} is {values[name]} {where} even before training: use more images, or fewer codes."
        " Where it is an objective, no draw will be on the front."
        for name in metrics
        if not math.isfinite(values[name])
    ]
    if found or num_images >= IMAGES_PER_CODE * num_codes:
        return found
    return [
        f"Scores {where} are largely chance. Use at least {IMAGES_PER_CODE * num_codes} images, or fewer codes."
    ]
