"""Several convolutions with ReLU between them, as a CPU computes them fastest: all layers of a run, then those of the next.

No layer's results are stacked, channels are last in memory, and ReLU and its slope overwrite what they are applied to. Each
layer is a 4 x 4 convolution of stride 2 and padding 1, or a transposed one. A chain can be differentiated once.

Shape suffixes: R runs, B batch, C H W image, O outputs, I inputs, h w of the smallest image; x and y have any of these.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from trainables import convolutions

Layer = tuple[torch.Tensor, torch.Tensor]
"""Weight and bias of a layer of R runs."""

Run = tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]
"""Input, weights and biases of one run."""


class _Layer(Protocol):
    def __call__(
        self, x: torch.Tensor, weight: torch.Tensor, bias_O: torch.Tensor | None = None, /
    ) -> torch.Tensor:
        """Compute a layer of one run."""


@dataclass(frozen=True)
class _Direction:
    """What differs between convolutions and transposed ones.

    Attributes:
        result: Computes a layer.
        input_slope: Computes the slope at a layer's input from the slope at its result.
        weight_slope: Computes the slope at its weight from its input and the slope at its result.
        ends_in_relu: Whether a ReLU follows the last layer, too.
    """

    result: _Layer
    input_slope: _Layer
    weight_slope: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ends_in_relu: bool


_DOWN = _Direction(
    convolutions.product, convolutions.transposed, convolutions.weight_slope, ends_in_relu=True
)
_UP = _Direction(
    convolutions.transposed,
    convolutions.product,
    lambda x, slope: convolutions.weight_slope(slope, x),
    ends_in_relu=False,
)


def down(x_RBCHW: torch.Tensor, layers: Sequence[Layer]) -> torch.Tensor:
    """Convolutions, each followed by ReLU, (R, B, O, h, w)."""
    return _chain(_DOWN, x_RBCHW, layers)


def up(x_RBIhw: torch.Tensor, layers: Sequence[Layer]) -> torch.Tensor:
    """Transposed convolutions with ReLU between them, (R, B, O, H, W)."""
    return _chain(_UP, x_RBIhw, layers)


def _chain(direction: _Direction, x_R: torch.Tensor, layers: Sequence[Layer]) -> torch.Tensor:
    parameters = [tensor for layer in layers for tensor in layer]
    if torch.is_grad_enabled():
        y_R: torch.Tensor = _Chain.apply(x_R, direction, *parameters)  # type: ignore[no-untyped-call]
        return y_R
    return convolutions.stack([_results(direction, *run)[-1] for run in _runs(x_R, parameters)], len(x_R))


class _Chain(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, x_R: torch.Tensor, direction: _Direction, *parameters: torch.Tensor
    ) -> torch.Tensor:
        context.direction, context.runs = direction, list(_runs(x_R, parameters))
        context.results = [_results(direction, *run) for run in context.runs]
        return convolutions.stack([results[-1] for results in context.results], len(x_R))

    @staticmethod
    def backward(context: Any, slope_R: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():  # with create_graph=True; second derivatives would be silently incomplete
            raise RuntimeError(
                "A chain of convolutions can be differentiated once. Use stacked.conv and stacked.conv_transpose."
            )
        asked = context.needs_input_grad[0]
        of_runs = zip(context.runs, context.results, convolutions.with_channels_last(slope_R), strict=False)
        slopes = [_slopes(context.direction, run, results, slope, asked) for run, results, slope in of_runs]
        x_slopes, *of_parameters = zip(*slopes, strict=True)
        x_slope_R = convolutions.stack(x_slopes, len(slope_R)) if asked else None
        return x_slope_R, None, *(convolutions.stack(each, len(slope_R)) for each in of_parameters)


def _runs(x_R: torch.Tensor, parameters: Sequence[torch.Tensor]) -> Iterator[Run]:
    """The input, weights and biases of each run that is not a ghost, with channels last."""
    x_R = convolutions.prepared(x_R, is_last=True)
    weights = [convolutions.prepared(weight, is_last=True) for weight in parameters[::2]]
    for r in range(convolutions.num_computed(len(x_R))):
        yield x_R[r], [weight[r] for weight in weights], [bias[r] for bias in parameters[1::2]]


def _results(
    direction: _Direction, x: torch.Tensor, weights: list[torch.Tensor], biases: list[torch.Tensor]
) -> list[torch.Tensor]:
    """The results of the layers of one run, after ReLU where one follows."""
    results = []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True), 1):
        x = direction.result(x, weight, bias)
        if layer < len(weights) or direction.ends_in_relu:
            x.relu_()
        results.append(x)
    return results


def _slopes(
    direction: _Direction, run: Run, results: list[torch.Tensor], slope: torch.Tensor, is_input_asked: bool
) -> list[torch.Tensor | None]:
    """The slopes of one run, from that at its last result: at its input, and at the weight and bias of each layer."""
    x, weights, _ = run
    slopes: list[torch.Tensor | None] = []
    for layer in range(len(weights) - 1, -1, -1):
        is_last = layer == len(weights) - 1
        if not is_last or direction.ends_in_relu:
            slope = _before_relu(slope, results[layer], in_place=not is_last)
        image = results[layer - 1] if layer else x
        slopes = [
            direction.weight_slope(image, slope),
            slope.sum((0, 2, 3)),
            *slopes,
        ]
        if layer or is_input_asked:
            slope = direction.input_slope(slope, weights[layer])
    return [slope if is_input_asked else None, *slopes]


def _before_relu(slope: torch.Tensor, result: torch.Tensor, *, in_place: bool) -> torch.Tensor:
    if in_place:
        return torch.ops.aten.threshold_backward.grad_input(slope, result, 0, grad_input=slope)
    return torch.ops.aten.threshold_backward(slope, result, 0)
