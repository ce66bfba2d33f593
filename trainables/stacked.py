"""Layers and an optimizer that compute R runs as one.

Every parameter has a leading axis R and lies in one row per run of an [R, P] buffer; every activation is x_RB...
What makes a run's bits independent of its neighbors: R is at least 2 (the engine adds a ghost to a lone run), rows
and layers start on multiples of 64 values, matrices on multiples of 16, and functions whose bits differ between a SIMD
body and its tail never get a tail.

Shape suffixes: R runs, B batch, C H W image, I inputs, O outputs, D latent dimensions, P parameters of a run.
"""

import contextlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch.optim.adam import adam

from trainables import conv_chains, convolutions, kernels

ALIGNMENT = 64
SIMD_BLOCK = 32
PARALLEL_GRAIN = 32768
"""Values below which torch does not share an elementwise operation between threads."""

GEMM_BLOCK = 16


class Parameters:
    """Parameters of R runs and their gradients: named tensors that are views of one row per run.

    Args:
        shapes: Shape of each parameter of one run, by name, in storage order.
        num_runs: R.
        device: Where the buffers lie.

    Attributes:
        values_RP: All parameters; the padding between layers stays zero.
        gradients_RP: The gradients that `backward` wrote last.
        tensors: Views of `values_RP`, (R, *shape), leaves of autograd.
        gradients: Views of `gradients_RP`, (R, *shape).
        num_parameters: Values of one run without padding.
    """

    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], num_runs: int, device: torch.device | str = "cpu"
    ) -> None:
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        padded = [-(-size // ALIGNMENT) * ALIGNMENT for size in sizes.values()]
        self.values_RP = torch.zeros(num_runs, sum(padded), device=device)
        self.gradients_RP = torch.zeros_like(self.values_RP)
        self.num_parameters = sum(sizes.values())
        self.tensors: dict[str, torch.Tensor] = {}
        self.gradients: dict[str, torch.Tensor] = {}
        offset = 0
        for (name, shape), size in zip(shapes.items(), padded, strict=True):
            columns = slice(offset, offset + sizes[name])
            self.tensors[name] = self.values_RP[:, columns].view(num_runs, *shape).requires_grad_()
            self.gradients[name] = self.gradients_RP[:, columns].view(num_runs, *shape)
            offset += size

    def backward(self, loss: torch.Tensor) -> None:
        """Write the gradients of a scalar loss, the sum over runs, into `gradients_RP`."""
        computed = gradients_of(loss, list(self.tensors.values()))
        for gradient, target in zip(computed, self.gradients.values(), strict=True):
            target.copy_(gradient)


class Adam:
    """Adam (Kingma & Ba 2015) on the rows of `Parameters`, without weight decay or schedule.

    A run whose gradient is not finite keeps its last finite parameters: `alive_R` becomes false, and its gradient
    and first moment are zeroed, so its row no longer moves. Nothing is read back from the device.
    """

    def __init__(
        self,
        parameters: Parameters,
        learning_rate: float,
        beta1: float,
        beta2: float,
        epsilon: float,
        steps_per_update: int = 1,
    ) -> None:
        self.parameters = parameters
        self.steps_per_update = steps_per_update
        values = parameters.values_RP
        self.first_moment_RP = torch.zeros_like(values)
        self.second_moment_RP = torch.zeros_like(values)
        self.num_steps = torch.zeros((), device=values.device)
        self._learning_rate, self._epsilon = learning_rate, epsilon
        self._beta1, self._beta2 = beta1, beta2

    def step(self, alive_R: torch.Tensor) -> torch.Tensor:
        """Apply the gradients of the runs that are alive; returns which are still alive, bool (R,)."""
        gradients = self.parameters.gradients_RP
        # A norm overflows before the second moment would, so a run whose squares are out of range ends as well.
        alive_R = alive_R & torch.isfinite(torch.linalg.vector_norm(gradients, dim=1))
        optimizer = kernels.chosen(gradients.device).optimizer
        if optimizer == "one_pass" and _is_one_pass_there(gradients.device):
            self._step_in_one_pass(alive_R)
            return alive_R
        if optimizer != "peeking" or not bool(alive_R.all()):
            gradients.masked_fill_(~alive_R[:, None], 0.0)
            self.first_moment_RP.masked_fill_(~alive_R[:, None], 0.0)
        adam(
            [self.parameters.values_RP],
            [gradients],
            [self.first_moment_RP],
            [self.second_moment_RP],
            [],
            [self.num_steps],
            amsgrad=False,
            weight_decay=0.0,
            maximize=False,
            fused=True,
            lr=self._learning_rate,
            beta1=self._beta1,
            beta2=self._beta2,
            eps=self._epsilon,
        )
        return alive_R

    def _step_in_one_pass(self, alive_R: torch.Tensor) -> None:
        from trainables import adam_kernel

        self.num_steps.add_(1)
        adam_kernel.step(
            self.parameters.values_RP.detach(),
            self.parameters.gradients_RP,
            (self.first_moment_RP, self.second_moment_RP),
            alive_R,
            self.num_steps,
            (self._learning_rate, self._beta1, self._beta2, self._epsilon),
        )


@cache
def _is_one_pass_there(device: torch.device) -> bool:
    """Whether Triton is installed and compiles here, which requires a C compiler."""
    if importlib.util.find_spec("triton") is None:
        return False
    from trainables import adam_kernel

    one = torch.ones(1, ALIGNMENT, device=device)
    try:
        moments = (one.clone(), one.clone())
        adam_kernel.step(one.clone(), one, moments, one[:, 0] > 0, one[0, 0], (1e-3, 0.9, 0.999, 1e-8))
    except Exception as error:
        print(f"One-pass Adam is not available; using PyTorch's Adam: {error!r}", file=sys.stderr, flush=True)
        return False
    return True


def matmul(a_RMK: torch.Tensor, b_RKN: torch.Tensor) -> torch.Tensor:
    """Matrix product of each run, (R, M, N)."""
    num_rows, num_columns = a_RMK.shape[1], b_RKN.shape[2]
    if _is_aligned(num_rows, a_RMK.shape[2], num_columns):
        return torch.bmm(a_RMK, b_RKN)
    a_RMK = F.pad(a_RMK, (0, 0, 0, -num_rows % GEMM_BLOCK))
    b_RKN = F.pad(b_RKN, (0, -num_columns % GEMM_BLOCK))
    return torch.bmm(a_RMK, b_RKN)[:, :num_rows, :num_columns]


def matmul_into(out_RMN: torch.Tensor, a_RMK: torch.Tensor, b_RKN: torch.Tensor) -> None:
    """Matrix product of each run, written in place: these may be the largest gradients of all."""
    is_aligned = _is_aligned(a_RMK.shape[1], a_RMK.shape[2], b_RKN.shape[2])
    if is_aligned and out_RMN.dtype == a_RMK.dtype == b_RKN.dtype:
        torch.bmm(a_RMK, b_RKN, out=out_RMN)
    else:
        out_RMN.copy_(matmul(a_RMK, b_RKN))


def linear(x_RBI: torch.Tensor, weight_RIO: torch.Tensor, bias_RO: torch.Tensor) -> torch.Tensor:
    """Affine map of each run, (R, B, O)."""
    if _is_aligned(x_RBI.shape[1], x_RBI.shape[2], weight_RIO.shape[2]):
        return torch.baddbmm(bias_RO[:, None], x_RBI, weight_RIO)
    return matmul(x_RBI, weight_RIO) + bias_RO[:, None]


def _is_aligned(m: int, k: int, n: int) -> bool:
    """Whether all matrices of a product of m x k and k x n values, and of its gradients, start on 64 bytes.

    The library's kernels for small matrices give other bits elsewhere, so results would depend on a run's position in
    the pack.
    """
    return not (m * k % GEMM_BLOCK or k * n % GEMM_BLOCK or m * n % GEMM_BLOCK)


def conv(x_RBCHW: torch.Tensor, weight_ROIHW: torch.Tensor, bias_RO: torch.Tensor) -> torch.Tensor:
    """4 x 4 convolution with stride 2 and padding 1 of each run: halves H and W."""
    return _convolution(x_RBCHW).conv(x_RBCHW, weight_ROIHW, bias_RO)


def conv_transpose(x_RBCHW: torch.Tensor, weight_RIOHW: torch.Tensor, bias_RO: torch.Tensor) -> torch.Tensor:
    """4 x 4 transposed convolution with stride 2 and padding 1 of each run: doubles H and W."""
    return _convolution(x_RBCHW).conv_transpose(x_RBCHW, weight_RIOHW, bias_RO)


def convolve(x_RBCHW: torch.Tensor, layers: Sequence[conv_chains.Layer]) -> torch.Tensor:
    """Several convolutions as `conv`, each followed by ReLU; on a CPU they can be differentiated once."""
    if _is_run_by_run(x_RBCHW):
        return conv_chains.down(x_RBCHW, layers)
    for weight_ROIHW, bias_RO in layers:
        x_RBCHW = F.relu(conv(x_RBCHW, weight_ROIHW, bias_RO))
    return x_RBCHW


def convolve_transposed(x_RBCHW: torch.Tensor, layers: Sequence[conv_chains.Layer]) -> torch.Tensor:
    """Several transposed convolutions as `conv_transpose`, with ReLU between them; on a CPU they can be differentiated once."""
    if _is_run_by_run(x_RBCHW):
        return conv_chains.up(x_RBCHW, layers)
    for layer, (weight_RIOHW, bias_RO) in enumerate(layers, 1):
        x_RBCHW = conv_transpose(x_RBCHW, weight_RIOHW, bias_RO)
        x_RBCHW = F.relu(x_RBCHW) if layer < len(layers) else x_RBCHW
    return x_RBCHW


def _is_run_by_run(x: torch.Tensor) -> bool:
    return kernels.chosen(x.device).convolution == "run_by_run"


def _convolution(x: torch.Tensor) -> convolutions.Way:
    return convolutions.WAYS[kernels.chosen(x.device).convolution]


def elementwise(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Apply a function to single values so that none of them is in a SIMD tail, whose bits may differ."""
    if x.device.type != "cpu":
        return function(x)  # all threads of a GPU compute alike
    count = x.numel()
    missing = -count % _simd_span(count)
    if not missing:
        return function(x)
    return function(F.pad(x.reshape(-1), (0, missing)))[:count].view(x.shape)


def _simd_span(count: int) -> int:
    """A tensor whose size is a multiple of this has no SIMD tail in any thread's share."""
    num_shares = min(torch.get_num_threads(), -(-count // PARALLEL_GRAIN))
    return SIMD_BLOCK * num_shares


class _BernoulliNats(torch.autograd.Function):
    """Sum of softplus(l) - x l, with the gradient sigmoid(l) - x kept from the forward pass."""

    @staticmethod
    def forward(context: Any, logits: torch.Tensor, x: torch.Tensor, is_valued: bool) -> torch.Tensor:
        context.slope = elementwise(torch.sigmoid, logits).sub_(x)
        if not is_valued:
            return logits.new_zeros(logits.shape[:2])
        return elementwise(F.softplus, logits).sub_(logits * x).flatten(2).sum(2)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (gradient_RB,) = gradients
        slope: torch.Tensor = context.slope
        del context.slope  # scaled in place, so there is no second backward
        return slope.mul_(gradient_RB.reshape(*gradient_RB.shape, *[1] * (slope.dim() - 2))), None, None


def bernoulli_nats(logits: torch.Tensor, x: torch.Tensor, *, is_valued: bool = True) -> torch.Tensor:
    """Negative log likelihood of each image under Bernoulli pixels, nats summed over pixels, (R, B).

    Args:
        logits: Log odds, (R, B, C, H, W).
        x: Targets in [0, 1], not necessarily binary, same shape.
        is_valued: Whether the value is needed; without it the result is zero with the right gradient, and much cheaper.
    """
    nats: torch.Tensor = _BernoulliNats.apply(logits, x, is_valued)
    return nats


def softmax_nats(log_odds_RBK: torch.Tensor, target_RBK: torch.Tensor) -> torch.Tensor:
    """Negative log likelihood of categories under a softmax, nats, (R, B).

    Args:
        log_odds_RBK: Log odds, up to a constant for each image.
        target_RBK: The categories as ones and zeros.
    """
    # The largest is treated as a constant: subtracting it keeps the sum in range and the gradient unchanged.
    shifted_RBK = log_odds_RBK - log_odds_RBK.detach().amax(2, keepdim=True)
    total_RB = elementwise(torch.exp, shifted_RBK).sum(2)
    return elementwise(torch.log, total_RB) - (shifted_RBK * target_RBK).sum(2)


def widened(x: torch.Tensor) -> torch.Tensor:
    """Results of products, as float32 if they are bfloat16: losses and statistics are computed from these."""
    return x.float() if x.dtype == torch.bfloat16 else x


def moments(rows_RMN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance of the M rows of each run, each (R, N)."""
    if rows_RMN.device.type != "cpu":  # where the numerics class names the size of the pack
        variance_RN, mean_RN = torch.var_mean(rows_RMN, 1, correction=0)
        return mean_RN, variance_RN
    # Uses products with ones: a reduction over the middle axis may give a run other bits in other packs.
    with _in_float32(rows_RMN):
        share_R1M = torch.full_like(rows_RMN[:, None, :, 0], 1 / rows_RMN.shape[1])
        mean_R1N = matmul(share_R1M, rows_RMN)
        return mean_R1N[:, 0], matmul(share_R1M, (rows_RMN - mean_R1N).square())[:, 0]


def gradients_of(total: torch.Tensor, at: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Gradients of a sum at some tensors; products of the backward pass have the precision of the forward ones."""
    with _in_float32(total):
        return torch.autograd.grad(total, list(at))


def slope_at_images(total: torch.Tensor, x_RBCHW: torch.Tensor) -> torch.Tensor:
    """The gradient of a sum at images, itself differentiable; slopes of weights are not computed."""
    with _in_float32(total), convolutions.of_images_alone():
        (slope_RBCHW,) = torch.autograd.grad(total, x_RBCHW, create_graph=True)
    return slope_RBCHW


def narrowed(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """Parameters as products use them: cast once if several products in bfloat16 read them."""
    device = next(iter(tensors.values())).device
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return tensors
    return {name: tensor.detach().to(torch.bfloat16) for name, tensor in tensors.items()}


def _in_float32(x: torch.Tensor) -> contextlib.AbstractContextManager[object]:
    """A context in which products stay float32 in a model that computes in bfloat16."""
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def gaussian_kl(mu_RBD: torch.Tensor, logvar_RBD: torch.Tensor) -> torch.Tensor:
    """KL(N(mu, exp(logvar)) || N(0, 1)) of each dimension in nats, (R, B, D)."""
    return 0.5 * (elementwise(torch.exp, logvar_RBD) + mu_RBD * mu_RBD - logvar_RBD - 1)


def gaussian_sample(mu_RBD: torch.Tensor, logvar_RBD: torch.Tensor, noise_RBD: torch.Tensor) -> torch.Tensor:
    """One sample of N(mu, exp(logvar)) from standard normal noise, (R, B, D)."""
    return mu_RBD + elementwise(torch.exp, 0.5 * logvar_RBD) * noise_RBD
