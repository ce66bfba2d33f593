"""The encoder and decoder that the VAEs share, and the settings of Adam.

`conv` is Tables 1-3 of Kim & Mnih (2018): for 64 x 64 images four 4 x 4 stride-2 convolutions of 32, 32, 64, 64 channels
and one hidden layer, mirrored in the decoder; for 32, 128 and 256 pixels a side one layer less or more (`image_sizes`).
`mlp` is two hidden layers each way, for images of any size.
Weights start Glorot uniform, biases at zero (the paper does not state its initialization; this is its framework's default), or as in
a widely used PyTorch port, whose trajectories differ: docs/reproduction.md.

Shape suffixes: R runs, B batch, C H W image, D latent dimensions.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F

from trainables import stacked
from trainables.errors import InputError
from trainables.fitting import by_image
from trainables.models.networks.image_sizes import (
    KERNEL,
    Network,
    check_takes_convolutions,
    conv_channels,
    network_for,
)


@dataclass(frozen=True)
class Adam:
    """Settings of one Adam optimizer.

    Attributes:
        learning_rate: Step size; the paper's 2D Shapes value is the default.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        epsilon: Added to the root of the second moment.
    """

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate <= 1:
            raise InputError("learning_rate must be above 0 and at most 1, for example 1e-4.")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise InputError("beta1 and beta2 must be in [0, 1), for example 0.9.")
        if not self.epsilon >= 1e-30:  # smaller ones are 0 in float32, and 0 / 0 where a gradient is 0
            raise InputError("epsilon must be at least 1e-30, for example 1e-8.")


Initialization = Literal["glorot", "normal"]


@dataclass(frozen=True)
class Vae:
    """Architecture of encoder and decoder.

    Attributes:
        network: `conv` as in the paper, `mlp`, or `auto`: convolutions for square images of 32, 64, 128 or 256 pixels a
            side, `mlp` for others.
        latent_dim: Number of latent dimensions D.
        width: Units of a hidden fully connected layer (paper: 128 on 2D Shapes, 256 elsewhere).
        initialization: Of all networks, including FactorVAE's discriminator: `glorot`, or `normal` with deviation 0.02, except
            for upconvolutions, which keep PyTorch's default, uniform within 1 / sqrt(outputs * kernel size).
        hidden_relu: Whether the encoder's hidden layer after the convolutions has a ReLU; the paper's table does
            not say; public ports differ.
    """

    network: Network = by_image(network_for, usual="conv")
    latent_dim: int = 10
    width: int = 128
    hidden_relu: bool = True
    initialization: Initialization = "glorot"

    def __post_init__(self) -> None:
        if self.latent_dim < 1 or self.width < 1:
            raise InputError("latent_dim and width must be at least 1.")


NORMAL_DEVIATION = 0.02

NUM_TRAVERSED = 7
"""Number of values of a code that a picture shows."""

Tensors = Mapping[str, torch.Tensor]
Uniform = Callable[[str, int], torch.Tensor]
Shapes = dict[str, tuple[int, ...]]


def vae_shapes(config: Vae, image: tuple[int, int, int]) -> Shapes:
    """Shapes of the parameters of one encoder and decoder, by name.

    Args:
        config: The architecture.
        image: (C, H, W).

    Raises:
        InputError: The convolutions do not take this size.
    """
    if config.network == "mlp":
        return _mlp_shapes(config, math.prod(image))
    check_takes_convolutions(image, "vae.network")
    ladder = (image[0], *conv_channels(image[1]))
    flat = ladder[-1] * KERNEL * KERNEL
    shapes: Shapes = {}
    for layer, (inputs, outputs) in enumerate(pairwise(ladder), 1):
        shapes |= _layer(f"encoder.conv{layer}", (outputs, inputs, KERNEL, KERNEL), outputs)
    shapes |= _layer("encoder.hidden", (flat, config.width), config.width)
    shapes |= _layer("encoder.out", (config.width, 2 * config.latent_dim), 2 * config.latent_dim)
    shapes |= _layer("decoder.hidden1", (config.latent_dim, config.width), config.width)
    shapes |= _layer("decoder.hidden2", (config.width, flat), flat)
    for layer, (outputs, inputs) in reversed(list(enumerate(pairwise(ladder), 1))):
        shapes |= _layer(f"decoder.conv{layer}", (inputs, outputs, KERNEL, KERNEL), outputs)
    return shapes


def _mlp_shapes(config: Vae, pixels: int) -> Shapes:
    width, latent = config.width, config.latent_dim
    return {
        **_layer("encoder.hidden1", (pixels, width), width),
        **_layer("encoder.hidden2", (width, width), width),
        **_layer("encoder.out", (width, 2 * latent), 2 * latent),
        **_layer("decoder.hidden1", (latent, width), width),
        **_layer("decoder.hidden2", (width, width), width),
        **_layer("decoder.out", (width, pixels), pixels),
    }


def _layer(name: str, weight: tuple[int, ...], bias: int) -> Shapes:
    return {f"{name}.weight": weight, f"{name}.bias": (bias,)}


def initialize(parameters: stacked.Parameters, uniform: Uniform, how: Initialization = "glorot") -> None:
    """Fill parameters as `Vae.initialization` says; biases stay zero, except those of PyTorch's upconvolutions.

    Args:
        parameters: The parameters to fill, still zero.
        uniform: Generates numbers in (0, 1), (R, count), from the stream of a given name.
        how: The distribution.
    """
    with torch.no_grad():
        for name, tensor in parameters.tensors.items():
            is_weight, is_upconv = tensor.ndim > 2, name.startswith("decoder.conv")
            if not is_weight and not (how == "normal" and is_upconv):
                continue
            signed = uniform(f"initial {name}", tensor[0].numel()) * 2 - 1
            if how == "glorot":
                shape = tensor.shape[1:]
                fans = math.prod(shape[2:]) * (shape[0] + shape[1])
                numbers = signed.mul_(math.sqrt(6.0 / fans))
            elif is_upconv:
                numbers = signed.mul_(
                    1 / math.sqrt(math.prod(parameters.tensors[_weight_of(name)].shape[2:]))
                )
            else:
                numbers = torch.erfinv(signed).mul_(NORMAL_DEVIATION * math.sqrt(2))
            tensor.copy_(numbers.view_as(tensor))


def _weight_of(name: str) -> str:
    return f"{name.rpartition('.')[0]}.weight"


def encode(config: Vae, tensors: Tensors, x_RBCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and log variance of q(z|x), each (R, B, D)."""
    if config.network == "mlp":
        h = F.relu(linear(tensors, "encoder.hidden1", x_RBCHW.flatten(2)))
        h = F.relu(linear(tensors, "encoder.hidden2", h))
    else:
        num_layers = len(conv_channels(x_RBCHW.shape[-1]))
        layers = [weight_and_bias(tensors, f"encoder.conv{layer}") for layer in range(1, num_layers + 1)]
        h = stacked.convolve(x_RBCHW, layers)
        h = linear(tensors, "encoder.hidden", h.flatten(2))
        h = F.relu(h) if config.hidden_relu else h
    mu, logvar = stacked.widened(linear(tensors, "encoder.out", h)).chunk(2, dim=2)
    return mu, logvar


def decode(config: Vae, tensors: Tensors, z_RBD: torch.Tensor, image: tuple[int, int, int]) -> torch.Tensor:
    """Log odds of the pixels given codes, (R, B, C, H, W)."""
    h = F.relu(linear(tensors, "decoder.hidden1", z_RBD))
    h = F.relu(linear(tensors, "decoder.hidden2", h))
    if config.network == "mlp":
        return stacked.widened(linear(tensors, "decoder.out", h)).unflatten(2, image)
    num_layers = len(conv_channels(image[1]))
    layers = [weight_and_bias(tensors, f"decoder.conv{layer}") for layer in range(num_layers, 0, -1)]
    return stacked.widened(stacked.convolve_transposed(h.unflatten(2, (-1, KERNEL, KERNEL)), layers))


def linear(tensors: Tensors, name: str, x: torch.Tensor) -> torch.Tensor:
    """The layer of this name at inputs (R, B, I): (R, B, O)."""
    return stacked.linear(x, *weight_and_bias(tensors, name))


def weight_and_bias(tensors: Tensors, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the layer of this name."""
    return tensors[f"{name}.weight"], tensors[f"{name}.bias"]


def prior_traversal(device: torch.device) -> torch.Tensor:
    """Values from -2 to 2 standard deviations of a normal prior, (V,)."""
    steps = torch.arange(NUM_TRAVERSED, device=device)
    return (steps * 2 - (NUM_TRAVERSED - 1)) * 2 / (NUM_TRAVERSED - 1)


def adam(parameters: stacked.Parameters, config: Adam, steps_per_update: int = 1) -> stacked.Adam:
    """The optimizer of these parameters, which makes this many steps per update of the model."""
    settings = (config.learning_rate, config.beta1, config.beta2, config.epsilon)
    return stacked.Adam(parameters, *settings, steps_per_update)
