"""Critic, Q and generator of InfoWGAN-GP (Kim & Mnih 2018, appendix; layers as in public ports of it).

Critic and Q share all but the last layers. `conv` is for square images of the sizes in `image_sizes`, `mlp` for any. No normalization in the
critic, whose gradient is penalized per sample; batch normalization before each activation of the generator.

Shape suffixes: R runs, B batch, C H W image, N values that are normalized together, D codes, Q outputs of Q,
K categories.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F

from trainables import stacked
from trainables.models.networks.image_sizes import KERNEL, check_takes_convolutions, conv_channels
from trainables.models.networks.vae import Shapes, Tensors, linear, weight_and_bias

LEAKY_SLOPE = 0.2
NORM_EPSILON = 1e-5
NORM_MOMENTUM = 0.1


def critic_shapes(network: str, width: int, image: tuple[int, int, int], num_outputs: int) -> Shapes:
    """Shapes of trunk, critic head and Q head of one run, by name."""
    if network == "conv":
        ladder = _ladder(image)
        flat = ladder[-1] * KERNEL * KERNEL
        shapes: Shapes = {}
        for layer, (inputs, outputs) in enumerate(pairwise(ladder), 1):
            shapes |= _layer(f"trunk.conv{layer}", (outputs, inputs, KERNEL, KERNEL), outputs)
        shapes |= _layer("trunk.hidden", (flat, width), width)
    else:
        shapes = _layer("trunk.hidden1", (math.prod(image), width), width)
        shapes |= _layer("trunk.hidden2", (width, width), width)
    return {
        **shapes,
        **_layer("critic.out", (width, 1), 1),
        **_layer("q.hidden", (width, width), width),
        **_layer("q.out", (width, num_outputs), num_outputs),
    }


def generator_shapes(network: str, width: int, image: tuple[int, int, int], num_inputs: int) -> Shapes:
    """Shapes of the generator of one run, by name; a normalized layer has a scale besides its bias."""
    if network == "conv":
        ladder = _ladder(image)
        flat = ladder[-1] * KERNEL * KERNEL
        shapes = {**_normalized("generator.hidden1", (num_inputs, width), width)}
        shapes |= _normalized("generator.hidden2", (width, flat), flat)
        for layer, (outputs, inputs) in reversed(list(enumerate(pairwise(ladder), 1))):
            name, weight = f"generator.conv{layer}", (inputs, outputs, KERNEL, KERNEL)
            shapes |= _normalized(name, weight, outputs) if layer > 1 else _layer(name, weight, outputs)
        return shapes
    return {
        **_normalized("generator.hidden1", (num_inputs, width), width),
        **_normalized("generator.hidden2", (width, width), width),
        **_layer("generator.out", (width, math.prod(image)), math.prod(image)),
    }


def _ladder(image: tuple[int, int, int]) -> tuple[int, ...]:
    """Channels of an image and of the convolutions after it."""
    check_takes_convolutions(image, "network")
    return (image[0], *conv_channels(image[1]))


def _layer(name: str, weight: tuple[int, ...], bias: int) -> Shapes:
    return {f"{name}.weight": weight, f"{name}.bias": (bias,)}


def _normalized(name: str, weight: tuple[int, ...], outputs: int) -> Shapes:
    return {**_layer(name, weight, outputs), f"{name}.scale": (outputs,)}


def criticize(tensors: Tensors, x_RBCHW: torch.Tensor, network: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The critic's score (R, B) and the trunk's features (R, B, width), which Q shares."""
    if network == "conv":
        h = x_RBCHW
        for layer in range(1, len(conv_channels(h.shape[-1])) + 1):
            name = f"trunk.conv{layer}"
            h = _leaky(stacked.conv(h, *weight_and_bias(tensors, name)))
        h = _leaky(linear(tensors, "trunk.hidden", h.flatten(2)))
    else:
        h = _leaky(linear(tensors, "trunk.hidden1", x_RBCHW.flatten(2)))
        h = _leaky(linear(tensors, "trunk.hidden2", h))
    return stacked.widened(linear(tensors, "critic.out", h)[..., 0]), h


def infer(tensors: Tensors, features: torch.Tensor) -> torch.Tensor:
    """Q's outputs for the codes, from the trunk's features: means, then log odds of the categories, (R, B, Q)."""
    return stacked.widened(linear(tensors, "q.out", _leaky(linear(tensors, "q.hidden", features))))


class Moments:
    """Running mean and variance of each normalized layer: one row per run, like parameters.

    Args:
        shapes: Shapes of the generator.
        num_runs: R.
        device: The device that holds them.
    """

    def __init__(self, shapes: Shapes, num_runs: int, device: torch.device) -> None:
        layers = {name.removesuffix(".scale"): shape for name, shape in shapes.items() if "scale" in name}
        kept = {
            f"{name}.{moment}": shape for name, shape in layers.items() for moment in ("mean", "variance")
        }
        self.store = stacked.Parameters(kept, num_runs, device)
        with torch.no_grad():
            for name in layers:
                self.store.tensors[f"{name}.variance"].fill_(1.0)

    @property
    def values_RP(self) -> torch.Tensor:
        """All running means and variances."""
        return self.store.values_RP

    @torch.no_grad()
    def keep(
        self, name: str, mean_RN: torch.Tensor, variance_RN: torch.Tensor, alive_R: torch.Tensor
    ) -> None:
        """Move towards the moments of a batch; those of a run that is not alive are unchanged."""
        rate_R1 = torch.where(alive_R, NORM_MOMENTUM, 0.0)[:, None]
        for moment, value_RN in (("mean", mean_RN), ("variance", variance_RN)):
            kept_RN = self.store.tensors[f"{name}.{moment}"]
            kept_RN.add_((value_RN.nan_to_num(0.0) - kept_RN) * rate_R1)

    def of(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance of a layer, each (R, N)."""
        return self.store.tensors[f"{name}.mean"].detach(), self.store.tensors[f"{name}.variance"].detach()


class Generator:
    """The generator as a function of its inputs.

    Args:
        tensors: Its parameters.
        moments: Moments of its normalized layers.
        network: `conv` or `mlp`.
        image: (C, H, W).
    """

    def __init__(self, tensors: Tensors, moments: Moments, network: str, image: tuple[int, int, int]) -> None:
        self._tensors, self._moments, self._network, self._image = tensors, moments, network, image

    def __call__(
        self, z_RBI: torch.Tensor, *, by_batch: bool, kept_by_R: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Images in (0, 1), (R, B, C, H, W).

        Args:
            z_RBI: Codes, categories as ones and zeros, and noise.
            by_batch: Normalize by the batch, as in training; otherwise by the running moments.
            kept_by_R: Move the running moments of these runs; by default of none.
        """

        def normalized(name: str, h: torch.Tensor) -> torch.Tensor:
            return self._normalized(name, h, by_batch, kept_by_R)

        h = F.relu(normalized("generator.hidden1", self._matmul(z_RBI, "generator.hidden1")))
        h = F.relu(normalized("generator.hidden2", self._matmul(h, "generator.hidden2")))
        if self._network == "mlp":
            logits = stacked.widened(linear(self._tensors, "generator.out", h)).unflatten(2, self._image)
            return stacked.elementwise(torch.sigmoid, logits)
        h = h.unflatten(2, (-1, KERNEL, KERNEL))
        for layer in range(len(conv_channels(self._image[1])), 0, -1):
            name = f"generator.conv{layer}"
            weight, bias = weight_and_bias(self._tensors, name)
            if layer > 1:
                h = _leaky(normalized(name, stacked.conv_transpose(h, weight, torch.zeros_like(bias))))
            else:
                h = stacked.conv_transpose(h, weight, bias)
        return stacked.elementwise(torch.sigmoid, stacked.widened(h))

    def _matmul(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return stacked.matmul(x, self._tensors[f"{name}.weight"])

    def _normalized(
        self, name: str, h: torch.Tensor, by_batch: bool, kept_by_R: torch.Tensor | None
    ) -> torch.Tensor:
        h = stacked.widened(h)
        rows_RMN = h.flatten(3).permute(0, 1, 3, 2).flatten(1, 2) if h.dim() == 5 else h
        if by_batch:
            mean_RN, variance_RN = stacked.moments(rows_RMN)
            if kept_by_R is not None:
                self._moments.keep(name, mean_RN, variance_RN, kept_by_R)
        else:
            mean_RN, variance_RN = self._moments.of(name)
        deviation_RN = stacked.elementwise(torch.sqrt, variance_RN + NORM_EPSILON)
        gain_RN = self._tensors[f"{name}.scale"] / deviation_RN
        offset_RN = self._tensors[f"{name}.bias"] - mean_RN * gain_RN
        shape = (*gain_RN.shape[:1], 1, gain_RN.shape[1], *[1] * (h.dim() - 3))
        return h * gain_RN.view(shape) + offset_RN.view(shape)


def _leaky(x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(x, LEAKY_SLOPE)
