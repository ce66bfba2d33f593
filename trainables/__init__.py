"""Train packs of stacked runs: models, data sets, metrics and the engine that joins them.

Needs torch, numpy and h5py alone. Nothing here knows of Ray (but `tune`), of a sweep, or of MLflow.
"""

__version__ = "0.1.0"
