"""Scores of reference codes, from random to perfect, on the images that runs are scored on.

They are scored like the codes of runs: same images, estimators and random numbers, so that a score can be read as a
fraction of what can be gained. Codes that do not come from a model have no posterior (activity is judged by their deviation,
which is 1) and no reconstruction.

A driver reads the names here, so torch is imported only where it is needed.

Shape suffixes: N images, K factors, D dimensions of a code.
"""

from __future__ import annotations

import math
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from trainables import config, contracts, fitting, scoring, sources
from trainables.config import RunSpec
from trainables.encoding import Encoding
from trainables.errors import InputError, UnknownNameError
from trainables.metric_identity import identity

if TYPE_CHECKING:
    from trainables.engine import ResolvedRun
    from trainables.images import Images, Source

CODES = {
    "oracle": "the index of each factor, standardized: everything is known, one factor per dimension",
    "rotated": "the oracle under a random rotation or reflection: everything is known, nothing is disentangled",
    "duplicated": "the oracle twice: every factor has two dimensions",
    "random": "standard normal numbers, independent of the images: nothing is known",
    "untrained": "the encoder of a beta-VAE before its first step: what the architecture alone gives",
}
CODES_VERSION = 1
"""Version of how codes are made; scores of other versions are computed again. Covers the untrained encoder's model."""

SEEDLESS = ("oracle", "duplicated")
"""Codes that do not depend on a seed."""

NUM_RANDOM = 10
"""Dimensions of a random code: as many as the paper's models have, since chance grows with it."""


def metrics() -> tuple[str, ...]:
    """Metrics that are computed from codes and ground truth, the cheap ones first.

    These are the metrics that need ground truth, and those others whose value depends only on the codes, not on their
    posterior or on how well images are reconstructed from them.
    """
    kinds = {name: contracts.metric(name) for name in contracts.metric_names()}
    found = [name for name, metric in kinds.items() if metric.NEEDS_FACTORS or _is_of_codes_alone(name)]
    return tuple(sorted(found, key=lambda name: not kinds[name].IS_CHEAP))


def _is_of_codes_alone(metric: str) -> bool:
    """Whether a metric gives equal codes equal values when everything else of their encodings differs."""
    codes_ND = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [2, 2]], dtype=np.float32)
    one, other = (
        Encoding(
            data="",
            factor_names=(),
            factor_sizes=(),
            rows_N=np.arange(5),
            factors_NK=np.zeros((5, 0), dtype=np.int64),
            mu_ND=codes_ND,
            logvar_ND=np.full_like(codes_ND, -value),
            kl_D=np.full(2, value),
            discrete_D=np.zeros(2, dtype=bool),
            recon_nats_N=np.full(5, value),
            recon_mse_N=np.full(5, value),
        )
        for value in (0.0, 1.0)
    )
    return scoring.scores(one, [metric])[metric] == scoring.scores(other, [metric])[metric]


def encodings(code: str, images: Images, num_seeds: int) -> list[Encoding]:
    """Encodings of the evaluation images by a code, one per seed, or only one if it has no seed (`SEEDLESS`).

    Args:
        code: One of `CODES`.
        images: With ground truth; a factor with one value gives a constant dimension.
        num_seeds: Number of seeds, from 0.

    Raises:
        UnknownNameError: No such code.
    """
    if code not in CODES:
        raise UnknownNameError("code", code, CODES)
    from trainables import evaluation
    from trainables.engine import Pack

    if code == "untrained":
        return evaluation.encodings(Pack([_untrained(images, seed) for seed in range(num_seeds)], images))
    rows_N = evaluation.evaluation_rows(len(images))
    factors_NK = images.factors(rows_N)
    return [
        Encoding(
            data=images.recipe,
            factor_names=images.factor_names,
            factor_sizes=images.factor_sizes,
            rows_N=rows_N,
            factors_NK=factors_NK,
            mu_ND=mu_ND.astype(np.float32),
            logvar_ND=None,
            kl_D=np.zeros(mu_ND.shape[1]),
            discrete_D=np.zeros(mu_ND.shape[1], dtype=bool),
            recon_nats_N=None,
            recon_mse_N=np.full(len(rows_N), np.nan),
        )
        for mu_ND in _codes(code, _standardized(factors_NK), num_seeds)
    ]


def _codes(code: str, oracle_NK: np.ndarray, num_seeds: int) -> list[np.ndarray]:
    num_images, num_factors = oracle_NK.shape
    match code:
        case "oracle":
            return [oracle_NK]
        case "duplicated":
            return [np.concatenate([oracle_NK, oracle_NK], axis=1)]
        case "rotated":
            return [oracle_NK @ rotation(num_factors, _generator(code, seed)) for seed in range(num_seeds)]
    return [_generator(code, seed).standard_normal((num_images, NUM_RANDOM)) for seed in range(num_seeds)]


def _standardized(factors_NK: np.ndarray) -> np.ndarray:
    """Factors minus their mean, divided by their deviation; a constant factor is 0."""
    centered_NK = factors_NK - factors_NK.mean(axis=0)
    deviation_K = centered_NK.std(axis=0)
    return centered_NK / np.where(deviation_K > 0, deviation_K, 1)


def rotation(num_axes: int, generator: np.random.Generator) -> np.ndarray:
    """An orthogonal matrix, uniform by Haar's measure, reflections included.

    Source: Mezzadri, How to Generate Random Matrices from the Classical Compact Groups, 2007: Q of a matrix of normal
    numbers, once the signs that QR leaves open are those that make R's diagonal positive.
    """
    q, r = np.linalg.qr(generator.standard_normal((num_axes, num_axes)))
    return q * np.sign(np.diag(r))


def _generator(code: str, seed: int) -> np.random.Generator:
    key = sha256(f"calibration {code} {seed}".encode()).digest()[:16]
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "big")))


def _untrained(images: Images, seed: int) -> ResolvedRun:
    """The paper's beta-VAE on any images; a perceptron if they are not 64 x 64."""
    from trainables.engine import ResolvedRun
    from trainables.models import beta_vae

    fields = {"vae.network": "conv" if images.shape[1:] == (64, 64) else "mlp"}
    spec = RunSpec("beta_vae", images.recipe, fields, seed)
    filled = config.replace(beta_vae.Config(), fields)
    key = config.run_key(spec, beta_vae.VERSION, fitting.usual(beta_vae.Config()), filled, images.recipe)
    return ResolvedRun(spec, filled, key, config.static_key(spec, filled), images.source)


def evaluated(data: str) -> dict[str, Any]:
    """The recipe of a data set, and on how many of its images metrics are computed.

    Raises:
        InputError: No such data set, or it has no ground truth.
    """
    from trainables import evaluation

    source = _source(data)
    return {"recipe": source.recipe, "num_images": len(evaluation.evaluation_rows(source.num_images))}


def score(data: str, code: str, metric: str, num_seeds: int) -> dict[str, Any]:
    """Score a code; the images and encodings of the last data set are cached.

    Returns:
        `values`, one per seed, see `encodings`, all nan if the images lack what the metric needs; `identity` of the
        metric.

    Raises:
        InputError: No such data set, code or metric, or no ground truth.
    """
    found = _encodings(data, code, num_seeds)
    full = identity(metric, len(found[0].rows_N))
    return {"values": [_value(encoding, metric) for encoding in found], "identity": full}


def _value(encoding: Encoding, metric: str) -> float:
    try:
        return scoring.scores(encoding, [metric])[metric]
    except InputError:  # for example a single factor, for a metric that needs two
        return math.nan


def _source(data: str) -> Source:
    source = sources.find(data)
    if not source.num_varying:
        if source.factor_sizes:
            raise InputError(
                f"{data}: each of its factors has only one value: nothing to calibrate.\n"
                "Save factors that vary, or use a data set that has some, for example dsprites."
            )
        remedy = "Save it in the file as 'factors', or use a data set that has some, for example dsprites."
        text = f"{data} has no ground truth: nothing to calibrate."
        raise InputError("\n".join([text, *(source.notes or [remedy])]))
    return source


@lru_cache(maxsize=1)
def _images(data: str) -> Images:
    import torch

    return _source(data).load(torch.device("cpu"))


@lru_cache(maxsize=len(CODES))
def _encodings(data: str, code: str, num_seeds: int) -> list[Encoding]:
    return encodings(code, _images(data), num_seeds)
