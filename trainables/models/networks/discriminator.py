"""FactorVAE's discriminator: a leaky-ReLU perceptron with two logits, differentiated by one chain.

Everything that FactorVAE needs from it is a function of l0 - l1, one number per sample, so the slopes of
sum_b (l0 - l1)_b at every layer are all that is needed: at the input they are the gradient of the density ratio, and
scaled row by row they give the weight gradients of any loss of l0 - l1.

Shape suffixes: R runs, B batch, D latent dimensions, I inputs and O outputs of a layer.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F

from trainables import stacked
from trainables.models.networks.vae import Shapes, Tensors, weight_and_bias

LEAKY_SLOPE = 0.2


def discriminator_shapes(latent_dim: int, depth: int, width: int) -> Shapes:
    """Shapes of the parameters of one discriminator, by name."""
    widths = [latent_dim, *[width] * depth, 2]
    shapes: Shapes = {}
    for layer, (inputs, outputs) in enumerate(pairwise(widths), 1):
        shapes[f"discriminator.layer{layer}.weight"] = (inputs, outputs)
        shapes[f"discriminator.layer{layer}.bias"] = (outputs,)
    return shapes


class Chain:
    """The discriminator at a batch of constant codes, with the slopes of sum_b (l0 - l1)_b at every layer.

    Args:
        tensors: Parameters, named as by `discriminator_shapes`.
        z_RBD: Codes, not part of any graph.

    Attributes:
        log_ratio_RB: l0 - l1 = log D/(1 - D), the estimated log density ratio of each sample.
        input_slope_RBD: Its gradient at the sample.
        inputs_RBI: The input of each layer, first layer first.
        slopes_RBO: The chain at each layer's output, first layer first.
    """

    @torch.no_grad()
    def __init__(self, tensors: Tensors, z_RBD: torch.Tensor) -> None:
        depth = len(tensors) // 2
        self.inputs_RBI = [z_RBD]
        for layer in range(1, depth):
            h = stacked.linear(self.inputs_RBI[-1], *_weight_and_bias(tensors, layer))
            self.inputs_RBI.append(F.leaky_relu_(h, LEAKY_SLOPE))
        logits_RB2 = stacked.widened(stacked.linear(self.inputs_RBI[-1], *_weight_and_bias(tensors, depth)))
        self.log_ratio_RB = logits_RB2[..., 0] - logits_RB2[..., 1]

        # Filled on the device: a constant from the host would be copied, and waited for, in every step.
        slope = torch.ones_like(logits_RB2)
        slope[..., 1].neg_()
        self.slopes_RBO = [slope]
        for layer in range(depth, 0, -1):
            weight_RIO, _ = _weight_and_bias(tensors, layer)
            slope = stacked.matmul(slope, weight_RIO.transpose(1, 2))
            if layer > 1:
                is_result = True  # the layer's output has the sign of its input
                slope = torch.ops.aten.leaky_relu_backward(
                    slope, self.inputs_RBI[layer - 1], LEAKY_SLOPE, is_result
                )
                self.slopes_RBO.insert(0, slope)
        self.input_slope_RBD = stacked.widened(slope)


def write_gradients(gradients: Tensors, chains: Sequence[Chain], scales_RB: Sequence[torch.Tensor]) -> None:
    """Write the weight gradients of a loss that is a function of each sample's l0 - l1.

    Args:
        gradients: Written in place, named like the parameters.
        chains: The batches that the loss sums over.
        scales_RB: The loss's derivative by l0 - l1 of each sample, one tensor per chain.
    """
    for layer in range(1, len(gradients) // 2 + 1):
        weight_RIO, bias_RO = _weight_and_bias(gradients, layer)
        inputs_RBI = torch.cat([chain.inputs_RBI[layer - 1] for chain in chains], 1)
        scaled = [c.slopes_RBO[layer - 1] * s[..., None] for c, s in zip(chains, scales_RB, strict=True)]
        scaled_RBO = torch.cat(scaled, 1)
        stacked.matmul_into(weight_RIO, inputs_RBI.transpose(1, 2), scaled_RBO)
        bias_RO.copy_(scaled_RBO.sum(1))


def _weight_and_bias(tensors: Tensors, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    return weight_and_bias(tensors, f"discriminator.layer{layer}")
