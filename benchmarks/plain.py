"""FactorVAE and beta-VAE as usually written for a single run: ordinary modules, autograd, and PyTorch's own Adam.

This is the baseline of every speed, and an independent check of every number. Given a run's weights and random inputs, a
step here equals a step of the run up to rounding.

Shape suffixes: B batch, D latent dimensions, C H W image.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

CHANNELS = (32, 32, 64, 64)
LEAKY_SLOPE = 0.2

Inputs = Mapping[str, torch.Tensor]
"""Random inputs of one run in a step, named as in `trainables.models`, without the axis of runs."""


def vae_layers(config: Any, image: tuple[int, int, int]) -> dict[str, nn.Module]:
    """Return the layers of encoder and decoder of `trainables.models.networks.vae.Vae`, by the names that packs use."""
    width, latent = config.width, config.latent_dim
    if config.network == "mlp":
        pixels = math.prod(image)
        sizes = {"encoder.hidden1": (pixels, width), "encoder.hidden2": (width, width)}
        sizes |= {"encoder.out": (width, 2 * latent), "decoder.hidden1": (latent, width)}
        sizes |= {"decoder.hidden2": (width, width), "decoder.out": (width, pixels)}
        return {name: nn.Linear(*size) for name, size in sizes.items()}
    ladder, flat = (image[0], *CHANNELS), CHANNELS[-1] * 16
    layers: dict[str, nn.Module] = {}
    for number, (inputs, outputs) in enumerate(pairwise(ladder), 1):
        layers[f"encoder.conv{number}"] = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
        layers[f"decoder.conv{number}"] = nn.ConvTranspose2d(outputs, inputs, 4, stride=2, padding=1)
    layers["encoder.hidden"], layers["encoder.out"] = nn.Linear(flat, width), nn.Linear(width, 2 * latent)
    layers["decoder.hidden1"], layers["decoder.hidden2"] = nn.Linear(latent, width), nn.Linear(width, flat)
    return layers


class Vae(nn.Module):
    """Encoder and decoder of one run.

    Args:
        config: Configuration, a `trainables.models.networks.vae.Vae`.
        image: (C, H, W).
    """

    def __init__(self, config: Any, image: tuple[int, int, int]) -> None:
        super().__init__()
        self.config, self.image = config, image
        self.layers = nn.ModuleDict({_key(name): layer for name, layer in vae_layers(config, image).items()})

    def _layer(self, name: str, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers[_key(name)](x)
        return result

    def encode(self, x_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and log variance of q(z|x), each (B, D)."""
        if self.config.network == "mlp":
            h = F.relu(self._layer("encoder.hidden1", x_BCHW.flatten(1)))
            h = F.relu(self._layer("encoder.hidden2", h))
        else:
            h = x_BCHW
            for number in range(1, 5):
                h = F.relu(self._layer(f"encoder.conv{number}", h))
            h = self._layer("encoder.hidden", h.flatten(1))
            h = F.relu(h) if self.config.hidden_relu else h
        mu_BD, logvar_BD = self._layer("encoder.out", h).chunk(2, 1)
        return mu_BD, logvar_BD

    def decode(self, z_BD: torch.Tensor) -> torch.Tensor:
        """Return the log odds of the pixels, (B, C, H, W)."""
        h = F.relu(self._layer("decoder.hidden1", z_BD))
        h = F.relu(self._layer("decoder.hidden2", h))
        if self.config.network == "mlp":
            return self._layer("decoder.out", h).unflatten(1, self.image)
        h = h.unflatten(1, (CHANNELS[-1], 4, 4))
        for number in range(4, 0, -1):
            h = self._layer(f"decoder.conv{number}", h)
            h = F.relu(h) if number > 1 else h
        return h

    def sample(self, x_BCHW: torch.Tensor, noise_BD: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return a sample of q(z|x), and the mean of KL(q(z|x) || p(z)) over the batch in nats."""
        mu_BD, logvar_BD = self.encode(x_BCHW)
        kl = 0.5 * (logvar_BD.exp() + mu_BD.square() - logvar_BD - 1).sum(1).mean()
        return mu_BD + (0.5 * logvar_BD).exp() * noise_BD, kl


def _key(name: str) -> str:
    return name.replace(".", "_")  # names of modules have no dots


class Plain(nn.Module):
    """One run of `factor_vae` or `beta_vae`.

    Args:
        name: Name of the model.
        config: The model's `Config`.
        image: (C, H, W).
        is_capturable: Whether the optimizers count their steps on the device, as a captured graph requires.
    """

    def __init__(
        self, name: str, config: Any, image: tuple[int, int, int], *, is_capturable: bool = False
    ) -> None:
        super().__init__()
        self.config, self.vae = config, Vae(config.vae, image)
        self.discriminator: nn.Module | None = None
        self._is_capturable = is_capturable
        if name == "factor_vae":
            settings = config.discriminator
            sizes = [config.vae.latent_dim, *[settings.width] * settings.depth, 2]
            layers = [nn.Linear(*size) for size in pairwise(sizes)]
            hidden = [part for layer in layers[:-1] for part in (layer, nn.LeakyReLU(LEAKY_SLOPE))]
            self.discriminator = nn.Sequential(*hidden, layers[-1])

    def load(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Load the weights of one run of a pack, by the names that packs use."""
        named = {
            f"{name}": self.vae.layers[_key(name)] for name in vae_layers(self.config.vae, self.vae.image)
        }
        if isinstance(self.discriminator, nn.Sequential):
            layers = [layer for layer in self.discriminator if isinstance(layer, nn.Linear)]
            named |= {f"discriminator.layer{number}": layer for number, layer in enumerate(layers, 1)}
        with torch.no_grad():
            for name, layer in named.items():
                weight = weights[f"{name}.weight"]
                layer.weight.copy_(weight.T if isinstance(layer, nn.Linear) else weight)  # type: ignore[operator]
                layer.bias.copy_(weights[f"{name}.bias"])  # type: ignore[operator]

    def weights(self) -> list[torch.Tensor]:
        """Return all parameters, each flattened, in the order of this module and not of packs."""
        return [parameter.detach().flatten() for parameter in self.parameters()]

    def prepare(self) -> None:
        """Create the optimizers, once the weights are loaded and on their device."""
        self._vae_adam = self._adam(self.vae, self.config.adam)
        if self.discriminator is not None:
            self._discriminator_adam = self._adam(self.discriminator, self.config.discriminator.adam)

    def _adam(self, module: nn.Module, settings: Any) -> torch.optim.Adam:
        return torch.optim.Adam(
            module.parameters(),
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            fused=True,
            capturable=self._is_capturable,
        )

    def step(self, inputs: Inputs) -> None:
        """Perform one update."""
        x_BCHW = inputs["batch a"]
        z_BD, kl = self.vae.sample(x_BCHW, inputs["noise a"])
        nats = F.binary_cross_entropy_with_logits(self.vae.decode(z_BD), x_BCHW, reduction="sum")
        recon = nats / len(x_BCHW)
        if self.discriminator is None:
            loss = recon + self.config.beta * kl
        else:
            odds_B2 = self.discriminator(z_BD)
            loss = recon + kl + self.config.gamma * (odds_B2[:, 0] - odds_B2[:, 1]).mean()
        self._vae_adam.zero_grad()
        loss.backward(inputs=list(self.vae.parameters()))
        self._vae_adam.step()
        if self.discriminator is not None:
            self._teach_discriminator(inputs, z_BD.detach())

    def _teach_discriminator(self, inputs: Inputs, real_BD: torch.Tensor) -> None:
        assert self.discriminator is not None
        with torch.no_grad():
            z_BD, _ = self.vae.sample(inputs["batch b"], inputs["noise b"])
            permuted_BD = z_BD.gather(0, inputs["permutation"].T)
        zero_B = torch.zeros(len(real_BD), dtype=torch.int64, device=real_BD.device)
        real_loss = F.cross_entropy(self.discriminator(real_BD), zero_B)
        permuted_loss = F.cross_entropy(self.discriminator(permuted_BD), zero_B + 1)
        self._discriminator_adam.zero_grad()
        (0.5 * (real_loss + permuted_loss)).backward()
        self._discriminator_adam.step()
