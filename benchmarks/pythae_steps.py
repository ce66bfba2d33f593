"""Pythae's FactorVAE and beta-VAE as its trainers step them, with our networks, batches and optimizers.

Pythae is not among this project's packages: `make bench` puts it into a folder of its own.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from benchmarks.plain import Plain
from trainables.engine import ResolvedRun
from trainables.images import Images
from trainables.models import beta_vae, factor_vae


def is_installed() -> bool:
    """Whether pythae can be imported."""
    try:
        import pythae  # noqa: F401
    except ImportError:
        return False
    return True


def stepper(run: ResolvedRun, images: Images) -> Callable[[int], None]:
    """Return a function that trains one run for this many steps, each on the next random images."""
    from pythae.models import BetaVAE, BetaVAEConfig, FactorVAE, FactorVAEConfig

    fields = cast(beta_vae.Config | factor_vae.Config, run.config)
    plain = Plain(run.spec.model, fields, images.shape)
    settings = {
        "input_dim": images.shape,
        "latent_dim": fields.vae.latent_dim,
        "reconstruction_loss": "bce",
    }
    encoder, decoder = _networks(plain)
    generator = torch.Generator().manual_seed(run.spec.seed)
    adam = torch.optim.Adam(plain.vae.parameters(), lr=fields.adam.learning_rate)
    if isinstance(fields, beta_vae.Config):
        model: Any = BetaVAE(BetaVAEConfig(beta=fields.beta, **settings), encoder, decoder)
        teacher = None
    else:
        model = FactorVAE(FactorVAEConfig(gamma=fields.gamma, **settings), encoder, decoder)
        model.discriminator = plain.discriminator
        its = fields.discriminator.adam
        teacher = torch.optim.Adam(
            model.discriminator.parameters(), lr=its.learning_rate, betas=(its.beta1, its.beta2)
        )
    # FactorVAE divides what it gets into its two batches.
    num_images = fields.batch_size * (1 if teacher is None else 2)

    def advance(num_steps: int) -> None:
        for _ in range(num_steps):
            rows = torch.randint(len(images), (num_images,), generator=generator)
            found = model({"data": images.at(rows)})
            adam.zero_grad()
            if teacher is None:
                found.loss.backward()
            else:
                found.autoencoder_loss.backward(retain_graph=True)
                teacher.zero_grad()
                found.discriminator_loss.backward()
            adam.step()
            if teacher is not None:
                teacher.step()

    return advance


def _networks(plain: Plain) -> tuple[nn.Module, nn.Module]:
    """Return our encoder and decoder as pythae expects them; its decoders return pixels."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.vae = plain.vae

        def forward(self, x_BCHW: torch.Tensor) -> Any:
            mu_BD, logvar_BD = self.vae.encode(x_BCHW)
            return ModelOutput(embedding=mu_BD, log_covariance=logvar_BD)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.vae = plain.vae

        def forward(self, z_BD: torch.Tensor) -> Any:
            return ModelOutput(reconstruction=self.vae.decode(z_BD).sigmoid())

    return Encoder(), Decoder()
