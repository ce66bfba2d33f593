"""Train packs of stacked runs: models, data sets, metrics and the engine that joins them.

Needs only torch, NumPy and h5py. Only `tune` knows Ray; nothing here knows sweeps or MLflow.
"""

__version__ = "0.1.0"
