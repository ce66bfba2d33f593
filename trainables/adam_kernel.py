"""Adam on the rows of a pack in one pass over memory, on CUDA with Triton, which is installed with torch there.

PyTorch's fused Adam needs more passes to keep a run that ended from moving. FactorVAE's discriminator has 5 million
parameters a run, so the bytes of its update are most of a step: 28 a parameter here, 44 there. Unmeasured: no GPU has run
this yet; its formula is tested in Triton's interpreter.

Shape suffixes: R runs, P parameters of a run.
"""

import math

import torch
import triton
import triton.language as tl

BLOCK = 1024
"""Parameters that one program updates."""


def step(
    values_RP: torch.Tensor,
    gradients_RP: torch.Tensor,
    moments_RP: tuple[torch.Tensor, torch.Tensor],
    alive_R: torch.Tensor,
    num_steps: torch.Tensor,
    settings: tuple[float, float, float, float],
) -> None:
    """Update values and moments in place, as Algorithm 1 of Kingma & Ba (2015); runs that are not alive are unchanged.

    Args:
        values_RP: Parameters, contiguous float32.
        gradients_RP: Their gradients.
        moments_RP: First and second moment.
        alive_R: Which runs are updated, bool.
        num_steps: Number of this step, from 1, a scalar float tensor.
        settings: Learning rate, beta1, beta2, epsilon.
    """
    learning_rate, beta1, beta2, epsilon = settings
    num_runs, num_parameters = values_RP.shape
    _update[(triton.cdiv(num_parameters, BLOCK), num_runs)](
        values_RP,
        gradients_RP,
        *moments_RP,
        alive_R.view(torch.uint8),
        num_steps,
        num_parameters,
        learning_rate,
        epsilon,
        beta2,
        1 - beta1,
        1 - beta2,
        _log(beta1),
        _log(beta2),
        BLOCK=BLOCK,
    )


def _log(beta: float) -> float:
    return math.log(beta) if beta else -math.inf


@triton.jit
def _update(  # type: ignore[no-untyped-def]
    values, gradients, firsts, seconds, alive, num_steps, num_parameters,
    learning_rate, epsilon, beta2, share1, share2, log_beta1, log_beta2, BLOCK: tl.constexpr,
):  # fmt: skip
    run = tl.program_id(1)
    if tl.load(alive + run) == 0:
        return
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_inside = column < num_parameters
    place = run.to(tl.int64) * num_parameters + column
    # All loads first: they are in flight while the corrections are computed.
    gradient = tl.load(gradients + place, mask=is_inside)
    first = tl.load(firsts + place, mask=is_inside)
    second = tl.load(seconds + place, mask=is_inside)
    value = tl.load(values + place, mask=is_inside)
    # In double, since 1 - beta2**t is small; on the device, since Python does not see the steps of a captured graph.
    t = tl.load(num_steps).to(tl.float64)
    rate = (learning_rate / (1 - tl.exp(t * log_beta1))).to(tl.float32)
    gain = (1 / tl.sqrt(1 - tl.exp(t * log_beta2))).to(tl.float32)
    first += share1 * (gradient - first)
    second = beta2 * second + share2 * gradient * gradient
    value -= rate * first / (tl.sqrt(second) * gain + epsilon)
    tl.store(values + place, value, mask=is_inside)
    tl.store(firsts + place, first, mask=is_inside)
    tl.store(seconds + place, second, mask=is_inside)
