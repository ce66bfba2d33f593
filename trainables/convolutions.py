"""Convolutions of R runs, each with its own weights: 4 x 4, stride 2, padding 1, and the transposed ones.

Six ways, all of which can be differentiated twice:

    one_by_one  one call a run, results stacked
    run_by_run  one call a run with channels last; several layers with ReLU between them are computed for one run after the other
                (`trainables.conv_chains`)
    streams     one call a run, calls of several runs at once on a GPU's streams; forked and joined inside a captured graph
    streams_nhwc   the same with channels last, as tensor cores expect them: no transposes around each kernel
    grouped     one grouped convolution in channels-last order (in NCHW order the kernel would depend on R)
    taps        products of matrices: on an image whose 2 x 2 squares are channels, the kernel is 2 x 2 taps of stride 1, and
                each tap is one batched product of the flattened image, shifted; nothing is unfolded

Shape suffixes: R runs, B batch, C H W image, O outputs, I inputs, h w half of H W; N flattened places, K inputs of a tap.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F

from trainables.kernels import Convolution

NUM_STREAMS = 8
"""Number of GPU streams that the convolutions of several runs share; unmeasured."""

_CUDA = "cuda"

FEW_OUTPUTS = 4
"""Channels up to which a CPU computes a transposed convolution as an ordinary one: 2.6 times as fast for one channel."""

Conv = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Image, weight and bias to image."""


@dataclass(frozen=True)
class Way:
    """A way to compute both convolutions.

    Attributes:
        conv: x (R, B, C, H, W), weight (R, O, C, 4, 4), bias (R, O) to (R, B, O, h, w).
        conv_transpose: x (R, B, I, h, w), weight (R, I, O, 4, 4), bias (R, O) to (R, B, O, H, W).
    """

    conv: Conv
    conv_transpose: Conv


def product(x_BCHW: torch.Tensor, weight: torch.Tensor, bias_O: torch.Tensor | None = None) -> torch.Tensor:
    """The convolution of one run, (B, O, h, w)."""
    return F.conv2d(x_BCHW, weight, bias_O, stride=2, padding=1)


def transposed(
    x_BIhw: torch.Tensor, weight: torch.Tensor, bias_O: torch.Tensor | None = None
) -> torch.Tensor:
    """The transposed convolution of one run, (B, O, H, W): without bias, the slope of the convolution at its image."""
    if x_BIhw.device.type != "cpu" or weight.shape[1] > FEW_OUTPUTS:
        return F.conv_transpose2d(x_BIhw, weight, bias_O, stride=2, padding=1)
    # The 2 x 2 places of a square as channels: tap t of 2 x 2 taps is row 2 (1 - t) + place of the kernel.
    taps = weight.unflatten(3, (2, 2)).unflatten(2, (2, 2)).flip(2, 4)
    kernel = taps.permute(1, 3, 5, 0, 2, 4).flatten(0, 2).contiguous(memory_format=torch.channels_last)
    squares = F.conv2d(x_BIhw, kernel, None if bias_O is None else bias_O.repeat_interleave(4), padding=1)
    return F.pixel_shuffle(squares, 2)[..., 1:-1, 1:-1].contiguous()


def weight_slope(x_BCHW: torch.Tensor, slope_BOhw: torch.Tensor) -> torch.Tensor:
    """The slope of one run's convolution at its weight, (O, C, 4, 4), from its image and the slope at its result."""
    shaped = x_BCHW.new_empty(slope_BOhw.shape[1], x_BCHW.shape[1], 4, 4)  # only its shape is used
    of_weight = [False, True, False]
    _, found, _ = torch.ops.aten.convolution_backward(
        slope_BOhw, x_BCHW, shaped, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1, of_weight
    )
    return found


def _conv_one_by_one(x_RBCHW: torch.Tensor, weight: torch.Tensor, bias_RO: torch.Tensor) -> torch.Tensor:
    runs = zip(x_RBCHW, weight, bias_RO, strict=True)
    return torch.stack([F.conv2d(x, w, bias, stride=2, padding=1) for x, w, bias in runs])


def _conv_transpose_one_by_one(
    x_RBIhw: torch.Tensor, weight: torch.Tensor, bias_RO: torch.Tensor
) -> torch.Tensor:
    runs = zip(x_RBIhw, weight, bias_RO, strict=True)
    return torch.stack([F.conv_transpose2d(x, w, bias, stride=2, padding=1) for x, w, bias in runs])


# Streams. Autograd would run each call's gradient on the call's stream and keep its memory until the graph is captured, so
# the three products are custom functions. The derivatives of each are the other two.


def _conv_on_streams(
    layout: torch.memory_format, x_RBCHW: torch.Tensor, weight: torch.Tensor, bias_RO: torch.Tensor
) -> torch.Tensor:
    y_RBOhw: torch.Tensor = _Product.apply(x_RBCHW, weight, layout)
    return y_RBOhw + _as_image(bias_RO, y_RBOhw)


def _conv_transpose_on_streams(
    layout: torch.memory_format, x_RBIhw: torch.Tensor, weight: torch.Tensor, bias_RO: torch.Tensor
) -> torch.Tensor:
    y_RBOHW: torch.Tensor = _Transposed.apply(x_RBIhw, weight, layout)
    return y_RBOHW + _as_image(bias_RO, y_RBOHW)


def _as_image(bias_RO: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return bias_RO[:, None, :, None, None].to(like.dtype)


Slopes = tuple[torch.Tensor | None, torch.Tensor | None, None]


class _Product(torch.autograd.Function):
    """The convolution without its bias."""

    @staticmethod
    @torch.amp.custom_fwd(device_type=_CUDA)
    def forward(
        context: Any, x_RBCHW: torch.Tensor, weight: torch.Tensor, layout: torch.memory_format
    ) -> torch.Tensor:
        context.save_for_backward(x_RBCHW, weight)
        context.layout = layout
        return _each(product, x_RBCHW, weight, layout)

    @staticmethod
    @torch.amp.custom_bwd(device_type=_CUDA)
    def backward(context: Any, *slopes: torch.Tensor) -> Slopes:
        x_RBCHW, weight = context.saved_tensors
        is_asked, layout = context.needs_input_grad, context.layout
        return (
            _Transposed.apply(slopes[0], weight, layout) if is_asked[0] else None,
            _WeightSlope.apply(x_RBCHW, slopes[0], layout)
            if is_asked[1] and not _is_of_images_alone
            else None,
            None,
        )


class _Transposed(torch.autograd.Function):
    """The transposed convolution without its bias: the slope of the convolution at its image."""

    @staticmethod
    @torch.amp.custom_fwd(device_type=_CUDA)
    def forward(
        context: Any, x_RBIhw: torch.Tensor, weight: torch.Tensor, layout: torch.memory_format
    ) -> torch.Tensor:
        context.save_for_backward(x_RBIhw, weight)
        context.layout = layout
        return _each(transposed, x_RBIhw, weight, layout)

    @staticmethod
    @torch.amp.custom_bwd(device_type=_CUDA)
    def backward(context: Any, *slopes: torch.Tensor) -> Slopes:
        x_RBIhw, weight = context.saved_tensors
        is_asked, layout = context.needs_input_grad, context.layout
        return (
            _Product.apply(slopes[0], weight, layout) if is_asked[0] else None,
            _WeightSlope.apply(slopes[0], x_RBIhw, layout) if is_asked[1] else None,
            None,
        )


class _WeightSlope(torch.autograd.Function):
    """The slope of the convolution at its weight, from its image and the slope at its result."""

    @staticmethod
    @torch.amp.custom_fwd(device_type=_CUDA)
    def forward(
        context: Any, x_RBCHW: torch.Tensor, slope_RBOhw: torch.Tensor, layout: torch.memory_format
    ) -> torch.Tensor:
        context.save_for_backward(x_RBCHW, slope_RBOhw)
        context.layout = layout
        return _each(weight_slope, x_RBCHW.to(slope_RBOhw.dtype), slope_RBOhw, layout)

    @staticmethod
    @torch.amp.custom_bwd(device_type=_CUDA)
    def backward(context: Any, *slopes: torch.Tensor) -> Slopes:
        x_RBCHW, slope_RBOhw = context.saved_tensors
        is_asked, layout = context.needs_input_grad, context.layout
        return (
            _Transposed.apply(slope_RBOhw, slopes[0], layout) if is_asked[0] else None,
            _Product.apply(x_RBCHW, slopes[0], layout) if is_asked[1] else None,
            None,
        )


_is_of_images_alone = False


@contextmanager
def of_images_alone() -> Iterator[None]:
    """Differentiate convolutions only at their images; autograd asks a Python function for all slopes or for none."""
    global _is_of_images_alone  # not thread-local: a GPU's backward pass runs in another thread
    _is_of_images_alone = True
    try:
        yield
    finally:
        _is_of_images_alone = False


_num_computed = sys.maxsize


@contextmanager
def of_first_runs(num_runs: int) -> Iterator[None]:
    """Compute only the first runs where each has calls of its own; the others are ghosts, for which the first run stands.

    Args:
        num_runs: Runs of the pack, without ghosts.
    """
    global _num_computed
    before, _num_computed = _num_computed, num_runs
    try:
        yield
    finally:
        _num_computed = before


def num_computed(num_runs: int) -> int:
    """How many of these runs, ghosts included, are computed."""
    return min(num_runs, _num_computed)


def _each(
    function: Callable[..., torch.Tensor], a_R: torch.Tensor, b_R: torch.Tensor, layout: torch.memory_format
) -> torch.Tensor:
    """Apply a function to the slices of each run and stack the results; on a GPU for several runs at once."""
    is_last = layout == torch.channels_last
    device = a_R.device
    a_R, b_R = prepared(a_R, is_last=is_last), prepared(b_R, is_last=is_last)
    parts = list(zip(a_R, b_R, strict=True))[: num_computed(len(a_R))]
    if device.type != _CUDA:
        return stack([function(a, b) for a, b in parts], len(a_R), is_last=is_last)
    current, others = torch.cuda.current_stream(device), _streams(device.index)
    for stream in others:
        stream.wait_stream(current)
    results = []
    for r, (a, b) in enumerate(parts):
        with torch.cuda.stream(others[r % len(others)]):
            results.append(function(a, b))
    for stream in others:
        current.wait_stream(stream)
    # Freed on `current`, these are used again by their streams: after the next fork, hence after this.
    return stack(results, len(a_R), is_last=is_last)


def prepared(x_R: torch.Tensor, *, is_last: bool) -> torch.Tensor:
    """What products of single runs read, cast and transposed once for all; otherwise each call would do so."""
    device = x_R.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        x_R = x_R.to(torch.get_autocast_dtype(device))
    return with_channels_last(x_R) if is_last else x_R


def with_channels_last(x_RBCHW: torch.Tensor) -> torch.Tensor:
    """The same images with channels last in memory, and marked so even if there is only one channel."""
    runs, batch, channels, height, width = x_RBCHW.shape
    x_RBHWC = x_RBCHW.movedim(2, 4).contiguous()
    image = height * width * channels
    strides = (batch * image, image, width * channels, channels, 1)
    return x_RBHWC.as_strided((runs, batch, height, width, channels), strides).movedim(4, 2)


def stack(results: Sequence[torch.Tensor], num_runs: int, *, is_last: bool = False) -> torch.Tensor:
    """The results of all runs, ghosts included; of images, (R, B, C, H, W), with channels last if wanted."""
    results = [*results, *[results[0]] * (num_runs - len(results))]
    if not is_last:
        return torch.stack(results)
    return torch.stack([result.permute(0, 2, 3, 1) for result in results]).permute(0, 1, 4, 2, 3)


@cache
def _streams(device: int) -> list[torch.cuda.Stream]:
    return [torch.cuda.Stream(device) for _ in range(NUM_STREAMS)]


def _conv_grouped(x_RBCHW: torch.Tensor, weight: torch.Tensor, bias_RO: torch.Tensor) -> torch.Tensor:
    merged, runs = _merged(x_RBCHW), len(x_RBCHW)
    y = F.conv2d(merged, weight.flatten(0, 1), bias_RO.flatten(), stride=2, padding=1, groups=runs)
    return y.unflatten(1, (runs, -1)).transpose(0, 1)


def _conv_transpose_grouped(
    x_RBIhw: torch.Tensor, weight: torch.Tensor, bias_RO: torch.Tensor
) -> torch.Tensor:
    merged, runs = _merged(x_RBIhw), len(x_RBIhw)
    y = F.conv_transpose2d(merged, weight.flatten(0, 1), bias_RO.flatten(), stride=2, padding=1, groups=runs)
    return y.unflatten(1, (runs, -1)).transpose(0, 1)


def _merged(x_RBCHW: torch.Tensor) -> torch.Tensor:
    """Runs as groups of channels, channels last; no copy of what a grouped convolution returned."""
    merged = x_RBCHW.transpose(0, 1).flatten(1, 2)
    return merged.contiguous(memory_format=torch.channels_last)


def _conv_by_taps(x_RBCHW: torch.Tensor, weight: torch.Tensor, bias_RO: torch.Tensor) -> torch.Tensor:
    runs, batch, channels, height, width = x_RBCHW.shape
    rows, columns = height // 2 + 1, width // 2 + 1
    squares = F.pad(x_RBCHW, (1, 1, 1, 1)).view(runs, batch, channels, rows, 2, columns, 2)
    flat_RNK = squares.permute(0, 1, 3, 5, 4, 6, 2).reshape(runs, -1, 4 * channels)
    # Rows of a tap that reach into the next line or image belong to no place and are cut off below.
    num_places = flat_RNK.shape[1] - columns - 1
    y_RNO = bias_RO[:, None].expand(-1, num_places, -1)
    for (i, j), tap_ROK in _taps(weight).items():
        shift = i * columns + j
        y_RNO = torch.baddbmm(y_RNO, flat_RNK[:, shift : shift + num_places], tap_ROK.transpose(1, 2))
    places = F.pad(y_RNO, (0, 0, 0, columns + 1)).view(runs, batch, rows, columns, -1)
    return places[:, :, :-1, :-1].permute(0, 1, 4, 2, 3)


def _conv_transpose_by_taps(
    x_RBIhw: torch.Tensor, weight: torch.Tensor, bias_RO: torch.Tensor
) -> torch.Tensor:
    runs, batch, inputs, height, width = x_RBIhw.shape
    rows, columns = height + 2, width + 2
    flat_RNI = F.pad(x_RBIhw, (1, 1, 1, 1)).permute(0, 1, 3, 4, 2).reshape(runs, -1, inputs)
    num_places = flat_RNI.shape[1] - columns - 1
    y_RNK = bias_RO.repeat(1, 4)[:, None].expand(-1, num_places, -1)
    for (i, j), tap_RIK in _taps(weight).items():
        shift = (1 - i) * columns + 1 - j
        y_RNK = torch.baddbmm(y_RNK, flat_RNI[:, shift : shift + num_places], tap_RIK)
    squares = F.pad(y_RNK, (0, 0, 0, columns + 1)).view(runs, batch, rows, columns, 2, 2, -1)
    image = squares[:, :, :-1, :-1].permute(0, 1, 6, 2, 4, 3, 5)
    return image.reshape(runs, batch, -1, 2 * (height + 1), 2 * (width + 1))[..., 1:-1, 1:-1]


def _taps(weight_ROCyx: torch.Tensor) -> dict[tuple[int, int], torch.Tensor]:
    """The kernel as 2 x 2 taps on squares of 2 x 2 places, each (R, O, K) with K = (y, x, C) in the square."""
    split = weight_ROCyx.unflatten(4, (2, 2)).unflatten(3, (2, 2))  # R O C, tap and place of y, of x
    return {(i, j): split[:, :, :, i, :, j].permute(0, 1, 3, 4, 2).flatten(2) for i in (0, 1) for j in (0, 1)}


def _on_streams(layout: torch.memory_format) -> Way:
    return Way(partial(_conv_on_streams, layout), partial(_conv_transpose_on_streams, layout))


WAYS: dict[Convolution, Way] = {
    "one_by_one": Way(_conv_one_by_one, _conv_transpose_one_by_one),
    "run_by_run": _on_streams(torch.channels_last),
    "streams": _on_streams(torch.contiguous_format),
    "streams_nhwc": _on_streams(torch.channels_last),
    "grouped": Way(_conv_grouped, _conv_transpose_grouped),
    "taps": Way(_conv_by_taps, _conv_transpose_by_taps),
}
