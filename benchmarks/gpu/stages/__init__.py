"""The stages, one measurement per file: `SECONDS`, its time limit, and `rows(bench)`, which yields rows as measured.

They are in order of importance: if time runs out, the last ones are lost.
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
"""Stages that are measured by default; `train` is measured only if named."""

ALL = (*ORDER, "train")
