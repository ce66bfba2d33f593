"""beta-VAE (Higgins et al. 2017), as the baseline of Kim & Mnih (2018).

Minimizes, per image in nats: E_q[-log p(x|z)] + beta KL(q(z|x) || p(z)). beta = 1 is the VAE.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from trainables import stacked
from trainables.config import per_run
from trainables.errors import InputError
from trainables.models.networks import vae as networks
from trainables.random_inputs import ImageBatch, Normal, RandomInput

VERSION = 1


@dataclass(frozen=True)
class Config:
    """Settings of one run; the defaults are the paper's for 2D Shapes.

    Attributes:
        beta: Weight of the KL term; may differ inside a pack.
        batch_size: Images per step.
        vae: Encoder and decoder.
        adam: Optimizer of encoder and decoder.
    """

    beta: float = per_run(4.0)
    batch_size: int = 64
    vae: networks.Vae = networks.Vae()
    adam: networks.Adam = networks.Adam()

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise InputError("beta must be at least 0; the paper uses 1 to 16.")
        if self.batch_size < 1:
            raise InputError("batch_size must be at least 1.")


def check_shape(config: Config, image: tuple[int, int, int]) -> None:
    """Check that the networks support images of shape (C, H, W).

    Raises:
        InputError: They do not support this size.
    """
    networks.vae_shapes(config.vae, image)


class Model:
    """R stacked beta-VAEs.

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
        self.beta_R = torch.tensor([config.beta for config in configs], device=device)
        self.vae = stacked.Parameters(networks.vae_shapes(self.config.vae, image), len(configs), device)
        networks.initialize(self.vae, uniform, self.config.vae.initialization)
        latent = self.config.vae.latent_dim
        self.buffers: dict[str, torch.Tensor] = {}
        self.discrete_D = (False,) * latent
        self.traversal_DV = networks.prior_traversal(device).expand(latent, -1)
        self.optimizers = {"vae": networks.adam(self.vae, self.config.adam)}

    def random_inputs(self) -> dict[str, RandomInput]:
        """Randomness of one step."""
        size, latent = self.config.batch_size, self.config.vae.latent_dim
        return {"batch a": ImageBatch(size), "noise a": Normal((size, latent))}

    def update(
        self, inputs: dict[str, torch.Tensor], alive_R: torch.Tensor, *, is_reported: bool
    ) -> dict[str, torch.Tensor]:
        """One step of Adam on the objective; reported values are those before it: (R,), nats per image."""
        x_RBCHW = inputs["batch a"]
        mu_RBD, logvar_RBD = self.encode(x_RBCHW)
        z_RBD = stacked.gaussian_sample(mu_RBD, logvar_RBD, inputs["noise a"])
        recon_R = stacked.bernoulli_nats(self.logits(z_RBD), x_RBCHW, is_valued=is_reported).mean(1)
        kl_R = stacked.gaussian_kl(mu_RBD, logvar_RBD).sum(2).mean(1)
        loss_R = recon_R + self.beta_R * kl_R

        self.vae.backward(loss_R.sum())
        alive_R = self.optimizers["vae"].step(alive_R)
        return {"alive": alive_R, "loss": loss_R.detach(), "recon": recon_R.detach(), "kl": kl_R.detach()}

    def encode(self, x_RBCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of q(z|x), each (R, B, D)."""
        return networks.encode(self.config.vae, self.vae.tensors, x_RBCHW)

    def logits(self, z_RBD: torch.Tensor) -> torch.Tensor:
        """Log odds of the pixels, (R, B, C, H, W)."""
        return networks.decode(self.config.vae, self.vae.tensors, z_RBD, self.image)

    def decode(self, z_RBD: torch.Tensor) -> torch.Tensor:
        """Mean of the pixels in [0, 1], (R, B, C, H, W)."""
        return stacked.elementwise(torch.sigmoid, self.logits(z_RBD))
