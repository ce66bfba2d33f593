"""The laws of a metric, tried on codes that are made up: perfect, random and constant ones.

Shape suffixes: N images, D dimensions of a code, K factors.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import get_args

import numpy as np

from trainables import contracts, scoring
from trainables.checking.laws import Law, Verdict, check_names, judge, require
from trainables.contracts import Direction, Metric
from trainables.encoding import Encoding

NUM_IMAGES = 720
FACTOR_SIZES = (3, 4, 5)
DOCUMENTED = ("Definition", "Range", "Direction", "Chance", "Source")


@dataclass(frozen=True)
class Subject:
    """A metric by its name, and its module."""

    name: str
    metric: Metric

    def score(self, encoding: Encoding) -> dict[str, float]:
        """Its values for an encoding, as in training."""
        return self.metric.score(encoding, scoring.metric_generator(self.name))


def check(name: str) -> list[Verdict]:
    """Check a metric by its name."""
    return judge(lambda: Subject(name, contracts.metric(name)), LAWS)


def known_codes() -> Iterator[tuple[str, Encoding]]:
    """Encodings with and without structure, each with what it is called."""
    generator = np.random.default_rng(0)
    factors_NK = np.stack(
        np.unravel_index(np.arange(NUM_IMAGES) % math.prod(FACTOR_SIZES), FACTOR_SIZES), axis=1
    )
    spread_NK = (factors_NK / (np.array(FACTOR_SIZES) - 1) - 0.5) * 2
    noise_N2 = generator.normal(size=(NUM_IMAGES, 2)) * 0.01
    shape_ND = (NUM_IMAGES, len(FACTOR_SIZES) + 2)
    codes = {
        "perfect": np.concatenate([spread_NK, noise_N2], axis=1),
        "random": generator.normal(size=shape_ND),
        "constant": np.zeros(shape_ND),
    }
    for name, mu_ND in codes.items():
        yield name, _encoding(mu_ND.astype(np.float32), factors_NK, generator)


def _encoding(mu_ND: np.ndarray, factors_NK: np.ndarray, generator: np.random.Generator) -> Encoding:
    logvar_ND = np.full_like(mu_ND, -3.0)
    kl_ND = 0.5 * (mu_ND.astype(np.float64) ** 2 + np.exp(logvar_ND) - 1 - logvar_ND)
    return Encoding(
        data="made up",
        factor_names=tuple(f"factor {k}" for k in range(len(FACTOR_SIZES))),
        factor_sizes=FACTOR_SIZES,
        rows_N=np.arange(NUM_IMAGES),
        factors_NK=factors_NK.astype(np.int64),
        mu_ND=mu_ND,
        logvar_ND=logvar_ND,
        kl_D=kl_ND.mean(axis=0),
        discrete_D=np.zeros(mu_ND.shape[1], dtype=bool),
        recon_nats_N=generator.uniform(10, 20, NUM_IMAGES),
        recon_mse_N=generator.uniform(0, 0.1, NUM_IMAGES),
    )


def _declared(subject: Subject) -> None:
    module = contracts.metric(subject.name)
    kinds = {
        "VERSION": int,
        "TITLE": str,
        "DIRECTION": str,
        "RANGE": tuple,
        "UNIT": str,
        "NEEDS_FACTORS": int,
        "IS_CHEAP": bool,
        "SETTINGS": dict,
        "score": object,
    }
    check_names(module, kinds)
    ways = get_args(Direction)
    require(module.DIRECTION in ways, f"DIRECTION is '{module.DIRECTION}'; expected {' or '.join(ways)}.")
    require(
        module.NEEDS_FACTORS in (0, 1, 2), f"NEEDS_FACTORS is {module.NEEDS_FACTORS}; expected 0, 1 or 2."
    )
    low, high = module.RANGE
    require(low < high, f"RANGE is {module.RANGE}; expected the lowest and the highest possible value.")


def _documented(subject: Subject) -> None:
    text = contracts.metric(subject.name).__doc__ or ""
    lacking = [f"'{word}: ...'" for word in DOCUMENTED if not re.search(rf"^{word}: \S", text, re.MULTILINE)]
    require(
        not lacking,
        f"the file's docstring lacks {', '.join(lacking)}, a line each.",
    )


def _scores(subject: Subject) -> None:
    low, high = subject.metric.RANGE
    for kind, encoding in known_codes():
        values = subject.score(encoding)
        require(
            subject.name in values,
            f"score does not return '{subject.name}', but {', '.join(values) or 'nothing'}.",
        )
        for name, value in values.items():
            is_own = name == subject.name or name.startswith(f"{subject.name}/")
            require(is_own, f"score returns '{name}'; parts are named '{subject.name}/part'.")
            require(isinstance(value, float), f"{name} is {type(value).__name__}; expected float.")
        value = values[subject.name]
        require(
            low <= value <= high, f"{kind} codes score {value:g}, which is outside RANGE {low:g} .. {high:g}."
        )


def _repeats(subject: Subject) -> None:
    for kind, encoding in known_codes():
        require(
            subject.score(encoding) == subject.score(encoding),
            f"{kind} codes score differently the second time. Use only `generator`.",
        )


def _changes_nothing(subject: Subject) -> None:
    for _, encoding in known_codes():
        before = encoding.to_bytes()
        subject.score(encoding)
        changed = encoding.to_bytes() != before
        require(
            not changed,
            "score changes the encoding, which other metrics use. Copy arrays before changing them.",
        )


def _needs_no_more(subject: Subject) -> None:
    """Images with exactly as many varying factors as declared are enough."""
    _, encoding = next(known_codes())
    count = subject.metric.NEEDS_FACTORS
    shown = {field.name: getattr(encoding, field.name) for field in fields(encoding)}
    shown["factor_names"], shown["factor_sizes"] = (
        encoding.factor_names[:count],
        encoding.factor_sizes[:count],
    )
    shown["factors_NK"] = encoding.factors_NK[:, :count]
    subject.score(Encoding(**shown))


LAWS = (
    Law("it declares what a metric declares", _declared),
    Law("its docstring says what it is", _documented),
    Law("perfect, random and constant codes score within RANGE", _scores),
    Law("equal codes score equally", _repeats),
    Law("it leaves the encoding as it is", _changes_nothing),
    Law("it needs no more factors than NEEDS_FACTORS", _needs_no_more),
)
