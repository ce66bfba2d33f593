"""The stages, one measurement a file: `SECONDS`, its time box, and `rows(bench)`, which yields lines as they are measured.

In order of importance: a cut loses the last ones.
"""

ORDER = (
    "ceilings",
    "smoke",
    "equality",
    "rates",
    "launches",
    "convolutions",
    "layers",
    "optimizers",
    "precisions",
    "baselines",
    "evaluation",
    "models",
    "kernels",
)
"""Stages that are measured unless others are named; `train` is only when named."""

ALL = (*ORDER, "train")
