"""Evaluation of a pack on a fixed set of images: an `Encoding` of each run, and pictures.

The images are sampled once per data set with a fixed stream and do not depend on the run.

Shape suffixes: R runs, N images, B batch, D dimensions of a code, C H W image.
"""

from typing import cast

import numpy as np
import torch

from trainables import convolutions, stacked, streams
from trainables.contracts import LikelihoodModel
from trainables.encoding import Encoding
from trainables.engine import Pack

MAX_IMAGES = 10_000
BATCH = 64
"""Images per batch: the activations of the paper's networks stay in memory that the allocator keeps."""

NUM_PICTURES = 8


def evaluation_rows(num_images: int) -> np.ndarray:
    """Rows of the images that every evaluation uses, sorted int64: all of them, or 10,000 at random."""
    if num_images <= MAX_IMAGES:
        return np.arange(num_images)
    name = "evaluation rows"
    bits = streams.Streams([0], {name: num_images}, "cpu").bits(torch.zeros(1, dtype=torch.int64))
    return np.sort(streams.permutations(bits[name][0, 0])[:MAX_IMAGES].numpy())


@torch.no_grad()
def encodings(pack: Pack) -> list[Encoding]:
    """Encode and reconstruct the evaluation images; one `Encoding` per run."""
    rows_N = evaluation_rows(len(pack.images))
    with convolutions.of_first_runs(len(pack.runs)):
        parts = [
            _encode_batch(pack, rows_N[start : start + BATCH], start)
            for start in range(0, len(rows_N), BATCH)
        ]
    joined = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    images, num_codes = pack.images, len(pack.model.discrete_D)
    return [
        Encoding(
            data=images.recipe,
            factor_names=images.factor_names,
            factor_sizes=images.factor_sizes,
            rows_N=rows_N,
            factors_NK=images.factors(rows_N),
            mu_ND=joined["mu"][r],
            logvar_ND=joined["logvar"][r] if "logvar" in joined else None,
            kl_D=joined["kl"][r].mean(0, dtype=np.float64) if "kl" in joined else np.zeros(num_codes),
            discrete_D=np.array(pack.model.discrete_D),
            recon_nats_N=joined["nats"][r].astype(np.float64) if "nats" in joined else None,
            recon_mse_N=joined["mse"][r].astype(np.float64),
        )
        for r in range(len(pack.runs))
    ]


def _encode_batch(pack: Pack, rows_B: np.ndarray, start: int) -> dict[str, np.ndarray]:
    model, runs = pack.model, len(pack.seeds)
    x_BCHW = pack.images.at(torch.from_numpy(rows_B).to(pack.device))
    x_RBCHW = x_BCHW.expand(runs, *x_BCHW.shape).contiguous()
    mu_RBD, logvar_RBD = model.encode(x_RBCHW)
    squared = (model.decode(mu_RBD) - x_RBCHW).square_()
    computed = {"mu": mu_RBD, "mse": squared.flatten(2).mean(2)}
    if model.HAS_LIKELIHOOD:
        assert logvar_RBD is not None
        z_RBD = stacked.gaussian_sample(mu_RBD, logvar_RBD, _noise(pack, start, mu_RBD.shape[1:]))
        computed |= {
            "logvar": logvar_RBD,
            "kl": stacked.gaussian_kl(mu_RBD, logvar_RBD),
            "nats": stacked.bernoulli_nats(cast(LikelihoodModel, model).logits(z_RBD), x_RBCHW),
        }
    return {name: value.cpu().numpy() for name, value in computed.items()}


def _noise(pack: Pack, start: int, shape: torch.Size) -> torch.Tensor:
    """Standard normal noise of an evaluation batch, the same at every training step."""
    name, count = "evaluation noise", shape.numel()
    source = streams.Streams(pack.seeds, {name: count + count % 2}, pack.device)
    bits = source.bits(torch.tensor([start], device=pack.device))[name][0]
    return streams.normal(bits)[:, :count].unflatten(1, shape)


@torch.no_grad()
def pictures(pack: Pack) -> list[dict[str, np.ndarray]]:
    """Pictures of each run, as uint8 levels from 0 to 255.

    Returns:
        Per run: `inputs` and their `reconstructions`, (8, C, H, W), and `traversal`, (D, 7, C, H, W), which moves one
        dimension at a time away from the code of the fifth input, which is in the middle of the set.
    """
    rows_N = evaluation_rows(len(pack.images))
    rows = rows_N[np.linspace(0, len(rows_N) - 1, NUM_PICTURES + 2).astype(np.int64)[1:-1]]
    x_BCHW = pack.images.at(torch.from_numpy(rows).to(pack.device))
    x_RBCHW = x_BCHW.expand(len(pack.seeds), *x_BCHW.shape).contiguous()
    mu_RBD, _ = pack.model.encode(x_RBCHW)
    rebuilt = _levels(pack.model.decode(mu_RBD))
    latent, num_values = pack.model.traversal_DV.shape
    z = mu_RBD[:, NUM_PICTURES // 2, None].repeat(1, latent * num_values, 1)
    which = torch.arange(latent, device=pack.device).repeat_interleave(num_values)
    z[:, torch.arange(len(which), device=pack.device), which] = pack.model.traversal_DV.reshape(-1)
    traversal = _levels(pack.model.decode(z))
    return [
        {
            "inputs": _levels(x_BCHW),
            "reconstructions": rebuilt[r],
            "traversal": traversal[r].reshape(latent, num_values, *pack.images.shape),
        }
        for r in range(len(pack.runs))
    ]


def _levels(x: torch.Tensor) -> np.ndarray:
    return (x * 255).round().to(torch.uint8).cpu().numpy()
