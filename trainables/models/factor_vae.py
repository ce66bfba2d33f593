"""FactorVAE (Kim & Mnih 2018, arXiv 1802.05983), Algorithm 2.

Minimizes, per image in nats: E_q[-log p(x|z)] + KL(q(z|x) || p(z)) + gamma TC(z), where the total correlation
TC = KL(q(z) || prod_j q(z_j)) is estimated by the density ratio of a discriminator D that tells samples of q(z) from
samples whose dimensions were permuted across a second, independent batch (Algorithm 1).

D has two logits (l0, l1), class 0 = q(z), class 1 = permuted, so log D/(1 - D) = l0 - l1. Both uses of D are functions
of this difference alone: the gradients at the logits are multiples of (1, -1) per sample. So one backward chain
from sum_b (l0 - l1)_b through D serves the TC term (its value at the input) and D's own loss (its rows, scaled).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainables import stacked
from trainables.config import per_run
from trainables.errors import InputError
from trainables.models.networks import vae as networks
from trainables.models.networks.discriminator import Chain, discriminator_shapes, write_gradients
from trainables.random_inputs import ImageBatch, Normal, Permutations, RandomInput

VERSION = 1


@dataclass(frozen=True)
class Discriminator:
    """The multilayer perceptron that estimates the density ratio.

    Attributes:
        depth: Hidden layers (paper: 6).
        width: Units of a hidden layer (paper: 1000).
        adam: Its optimizer (paper: learning rate 1e-4 on 2D Shapes, beta1 0.5, beta2 0.9).
    """

    depth: int = 6
    width: int = 1000
    adam: networks.Adam = networks.Adam(beta1=0.5, beta2=0.9)

    def __post_init__(self) -> None:
        if self.depth < 1 or self.width < 1:
            raise InputError("discriminator.depth and discriminator.width must be at least 1.")


@dataclass(frozen=True)
class Config:
    """Settings of one run; the defaults are the paper's for 2D Shapes.

    Attributes:
        gamma: Weight of the total correlation; may differ inside a pack.
        batch_size: Images of each of the two batches of a step.
        vae: Encoder and decoder.
        adam: Optimizer of encoder and decoder.
        discriminator: Estimator of the density ratio.
    """

    gamma: float = per_run(40.0)
    batch_size: int = 64
    vae: networks.Vae = networks.Vae()
    adam: networks.Adam = networks.Adam()
    discriminator: Discriminator = Discriminator()

    def __post_init__(self) -> None:
        if not self.gamma >= 0:
            raise InputError("gamma must be at least 0; the paper uses up to 100.")
        if self.batch_size < 2:
            raise InputError("batch_size must be at least 2: codes are permuted across the batch.")


def check_shape(config: Config, image: tuple[int, int, int]) -> None:
    """Check that the networks support images of shape (C, H, W).

    Raises:
        InputError: They do not support this size.
    """
    networks.vae_shapes(config.vae, image)


class Model:
    """R stacked FactorVAEs.

    Args:
        configs: One per run; equal except for per-run fields.
        image: (C, H, W).
        uniform: Generates numbers in (0, 1), (R, count), from the stream of a given name.
        device: Where to train.

    Attributes:
        optimizers: The optimizers, by network.
        buffers: What training changes besides the parameters, one row per run, (R, P); empty here.
        discrete_D: Which codes are categories.
        traversal_DV: Values of each code that a picture shows, in the order of V.
    """

    KEPT = ("vae",)
    """Networks whose weights are kept after training."""

    HAS_LIKELIHOOD = True
    """Whether `logits` gives a Bernoulli likelihood of the pixels."""

    def __init__(
        self,
        configs: Sequence[Config],
        image: tuple[int, int, int],
        uniform: networks.Uniform,
        device: torch.device,
    ) -> None:
        self.config, self.image = configs[0], image
        self.gamma_R = torch.tensor([config.gamma for config in configs], device=device)
        self.vae = stacked.Parameters(networks.vae_shapes(self.config.vae, image), len(configs), device)
        settings = self.config.discriminator
        shapes = discriminator_shapes(self.config.vae.latent_dim, settings.depth, settings.width)
        self.discriminator = stacked.Parameters(shapes, len(configs), device)
        for parameters in (self.vae, self.discriminator):
            networks.initialize(parameters, uniform, self.config.vae.initialization)
        latent = self.config.vae.latent_dim
        self.buffers: dict[str, torch.Tensor] = {}
        self.discrete_D = (False,) * latent
        self.traversal_DV = networks.prior_traversal(device).expand(latent, -1)
        self.optimizers = {
            "vae": networks.adam(self.vae, self.config.adam),
            "discriminator": networks.adam(self.discriminator, settings.adam),
        }

    def random_inputs(self) -> dict[str, RandomInput]:
        """Randomness of one step: two independent batches, noise for each, one permutation per dimension."""
        size, latent = self.config.batch_size, self.config.vae.latent_dim
        return {
            "batch a": ImageBatch(size),
            "noise a": Normal((size, latent)),
            "batch b": ImageBatch(size),
            "noise b": Normal((size, latent)),
            "permutation": Permutations(latent, size),
        }

    def update(
        self, inputs: dict[str, torch.Tensor], alive_R: torch.Tensor, *, is_reported: bool
    ) -> dict[str, torch.Tensor]:
        """One iteration of Algorithm 2; reported values are those before it: (R,), nats per image."""
        # Batch A: the VAE's step, D frozen.
        x_RBCHW = inputs["batch a"]
        mu_RBD, logvar_RBD = self.encode(x_RBCHW)
        z_RBD = stacked.gaussian_sample(mu_RBD, logvar_RBD, inputs["noise a"])
        recon_R = stacked.bernoulli_nats(self.logits(z_RBD), x_RBCHW, is_valued=is_reported).mean(1)
        kl_R = stacked.gaussian_kl(mu_RBD, logvar_RBD).sum(2).mean(1)
        discriminator = stacked.narrowed(self.discriminator.tensors)  # the same for both batches
        real = Chain(discriminator, z_RBD.detach())
        tc_R = real.log_ratio_RB.mean(1)
        # A term of value 0 whose gradient at z is the gradient of gamma mean log D/(1 - D).
        tc_slope_RBD = real.input_slope_RBD * (self.gamma_R / self.config.batch_size)[:, None, None]
        tc_pull = (z_RBD * tc_slope_RBD).sum()

        self.vae.backward((recon_R + kl_R).sum() + tc_pull)
        loss_R = recon_R.detach() + kl_R.detach() + self.gamma_R * tc_R
        alive_R = self.optimizers["vae"].step(alive_R)

        # Batch B, independent: samples of prod_j q(z_j) by Algorithm 1; codes are constants for D.
        with torch.no_grad():
            mu_RBD, logvar_RBD = self.encode(inputs["batch b"])
            z_RBD = stacked.gaussian_sample(mu_RBD, logvar_RBD, inputs["noise b"])
            z_permuted_RBD = z_RBD.gather(1, inputs["permutation"].transpose(1, 2))
        permuted = Chain(discriminator, z_permuted_RBD)

        # -1/2 mean log D(z) - 1/2 mean log(1 - D(z_permuted)), by its slope at l0 - l1 of each sample.
        half = 0.5 / self.config.batch_size
        real_scale_RB = -half * stacked.elementwise(torch.sigmoid, -real.log_ratio_RB)
        permuted_scale_RB = half * stacked.elementwise(torch.sigmoid, permuted.log_ratio_RB)
        write_gradients(self.discriminator.gradients, (real, permuted), (real_scale_RB, permuted_scale_RB))
        alive_R = self.optimizers["discriminator"].step(alive_R)
        return {
            "alive": alive_R,
            "loss": loss_R,
            "recon": recon_R.detach(),
            "kl": kl_R.detach(),
            "tc": tc_R,
        }

    def encode(self, x_RBCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of q(z|x), each (R, B, D)."""
        return networks.encode(self.config.vae, self.vae.tensors, x_RBCHW)

    def logits(self, z_RBD: torch.Tensor) -> torch.Tensor:
        """Log odds of the pixels, (R, B, C, H, W)."""
        return networks.decode(self.config.vae, self.vae.tensors, z_RBD, self.image)

    def decode(self, z_RBD: torch.Tensor) -> torch.Tensor:
        """Mean of the pixels in [0, 1], (R, B, C, H, W)."""
        return stacked.elementwise(torch.sigmoid, self.logits(z_RBD))
