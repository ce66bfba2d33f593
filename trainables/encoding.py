"""The encoding kept of a finished run: its codes of a fixed set of images, and how well it reconstructs them.

Every metric is a pure function of an `Encoding`, so new metrics of finished runs need no training.
Shape suffixes: N images, D code dimensions, K factors.
"""

import io
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Encoding:
    """Codes and reconstruction errors of N fixed images under one trained run.

    Attributes:
        data: The recipe of the images, for example `sprites (rendered v1)`.
        factor_names: Ground-truth factors in index order; empty without ground truth.
        factor_sizes: Number of values of each factor, (K,).
        rows_N: Index of each image in its data set, int64.
        factors_NK: Ground-truth factor values, int64 in 0 .. size - 1; (N, 0) without ground truth.
        mu_ND: Representation, float32: the mean of q(z|x), or Q's mean for a GAN.
        logvar_ND: Log variance of q(z|x), float32; None if codes have no posterior.
        kl_D: Mean over the images of KL(q(z_d|x) || N(0, 1)), nats, float64; zeros without a posterior.
        discrete_D: Which codes are categories (their value is a label, not a quantity).
        recon_nats_N: Bernoulli reconstruction error of each image at one sampled z, nats summed over pixels and
            channels, float64; None for a model without a likelihood.
        recon_mse_N: Squared error per pixel and channel of each image rebuilt from `mu_ND`, float64.

    Raises:
        ValueError: An array does not have the shape that its suffix says, or has values that it cannot mean.
    """

    data: str
    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]
    rows_N: np.ndarray
    factors_NK: np.ndarray
    mu_ND: np.ndarray
    logvar_ND: np.ndarray | None
    kl_D: np.ndarray
    discrete_D: np.ndarray
    recon_nats_N: np.ndarray | None
    recon_mse_N: np.ndarray

    def __post_init__(self) -> None:
        # An encoding outlives its model, so an invalid one must not be written.
        sizes = {"N": len(self.rows_N), "D": len(self.kl_D), "K": len(self.factor_sizes)}
        for field in fields(self):
            array, suffix = getattr(self, field.name), field.name.rpartition("_")[2]
            if not suffix.isupper() or array is None:
                continue
            shape = tuple(sizes[axis] for axis in suffix)
            if array.shape != shape:
                raise ValueError(f"{field.name} has shape {array.shape}, expected {shape}.")
        if len(self.factor_names) != len(self.factor_sizes):
            raise ValueError(
                f"{len(self.factor_names)} factor names for {len(self.factor_sizes)} factor sizes."
            )
        for name, size, values_N in zip(self.factor_names, self.factor_sizes, self.factors_NK.T, strict=True):
            if len(values_N) and not 0 <= values_N.min() <= values_N.max() < size:
                raise ValueError(
                    f"factor '{name}' has values from {values_N.min()} to {values_N.max()}, expected 0 to {size - 1}."
                )
        if (np.abs(self.mu_ND[np.isfinite(self.mu_ND)]) > np.finfo(np.float32).max).any():
            raise ValueError("mu_ND has values beyond the range of float32.")

    def to_bytes(self) -> bytes:
        """Serialise as an uncompressed npz without pickled members; equal encodings give equal bytes."""
        arrays = {
            f.name: np.asarray(getattr(self, f.name))
            for f in fields(self)
            if getattr(self, f.name) is not None
        }
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, blob: bytes) -> "Encoding":
        """Read what `to_bytes` wrote; the caller has checked its sha256."""
        with np.load(io.BytesIO(blob), allow_pickle=False) as members:
            return cls(
                data=str(members["data"]),
                factor_names=tuple(str(n) for n in members["factor_names"]),
                factor_sizes=tuple(int(n) for n in members["factor_sizes"]),
                rows_N=members["rows_N"],
                factors_NK=members["factors_NK"],
                mu_ND=members["mu_ND"],
                logvar_ND=members.get("logvar_ND"),
                kl_D=members["kl_D"],
                discrete_D=members["discrete_D"],
                recon_nats_N=members.get("recon_nats_N"),
                recon_mse_N=members["recon_mse_N"],
            )
