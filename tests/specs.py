"""Specifications of runs and sweeps for tests that train nothing: what a test does not say is filled in."""

from collections.abc import Mapping, Sequence

from sweeper.ledger.rows import SweepSpec
from trainables.config import Precision, StoredSpec, Value


def run_spec(
    model: str = "beta_vae",
    *,
    data: str = "sprites",
    fields: Mapping[str, Value] = {},
    seed: int = 0,
    precision: Precision = "fp32",
    recipe: str = "sprites (rendered v1)",
) -> StoredSpec:
    return StoredSpec(
        model=model, data=data, fields=dict(fields), seed=seed, precision=precision, recipe=recipe
    )


def sweep_spec(
    model: str = "factor_vae",
    *,
    question: str = "Does it?",
    objectives: Sequence[str] = ("recon_error", "factor_vae_score"),
    metrics: Sequence[str] | None = None,
    data: str = "sprites",
    steps: int = 40,
    note: str = "",
    num_factors: int | None = None,
) -> SweepSpec:
    """A specification as the ledger returns it; without `num_factors` as the first ledgers had it."""
    spec = SweepSpec(
        question=question,
        model=model,
        objectives=list(objectives),
        metrics=list(objectives if metrics is None else metrics),
        data=data,
        fields={},
        steps=steps,
        note=note,
    )
    return spec if num_factors is None else {**spec, "num_factors": num_factors}
