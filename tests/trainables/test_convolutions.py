"""Every way to convolve gives the result and the first and second derivatives of PyTorch's own convolutions."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from trainables import convolutions, kernels
from trainables.convolutions import WAYS
from trainables.engine import Pack, ResolvedRun
from trainables.images import Images
from trainables.kernels import Convolution
from trainables.models.networks.image_sizes import conv_channels

pytestmark = pytest.mark.usefixtures("arithmetic")

LADDER = (1, *conv_channels(64))
PAPER = [(LADDER[i], LADDER[i + 1], 64 >> i) for i in range(4)]
"""Channels in, channels out and size of the paper's four layers."""

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}
"""Relative error in the norm of any result, first or second derivative; measured 7e-14 and 4e-5."""


def normal(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()


def by_pytorch(
    function: Callable[..., torch.Tensor], x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    return torch.stack([function(*parts, stride=2, padding=1) for parts in zip(x, weight, bias, strict=True)])


def derivatives(y: torch.Tensor, arguments: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """First derivatives of a function of the result, and of their squares, which are second derivatives."""
    firsts = torch.autograd.grad(y.sin().sum(), arguments, create_graph=True)
    seconds = torch.autograd.grad(torch.stack([first.square().sum() for first in firsts]).sum(), arguments)
    return [*firsts, *seconds]


def assert_equal(found: list[torch.Tensor], expected: list[torch.Tensor], dtype: torch.dtype) -> None:
    for value, right in zip(found, expected, strict=True):
        assert value.shape == right.shape
        assert (value - right).norm() <= TOLERANCE[dtype] * right.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("inputs", "outputs", "size"), [*PAPER, (3, 5, 4), (2, 3, 2)])
@pytest.mark.parametrize("way", WAYS)
def test_a_way_is_the_convolution_and_its_derivatives(
    way: Convolution, inputs: int, outputs: int, size: int, dtype: torch.dtype
) -> None:
    runs, batch = 3, 2
    x = normal(runs, batch, inputs, size, size, dtype=dtype)
    weight = normal(runs, outputs, inputs, 4, 4, dtype=dtype, seed=1)
    bias = normal(runs, outputs, dtype=dtype, seed=2)
    found, right = WAYS[way].conv(x, weight, bias), by_pytorch(F.conv2d, x, weight, bias)
    assert_equal([found], [right], dtype)
    arguments = (x, weight, bias)
    assert_equal(derivatives(found, arguments), derivatives(right, arguments), dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("outputs", "inputs", "size"), [*PAPER, (3, 5, 4), (2, 3, 2)])
@pytest.mark.parametrize("way", WAYS)
def test_a_way_is_the_transposed_convolution_and_its_derivatives(
    way: Convolution, inputs: int, outputs: int, size: int, dtype: torch.dtype
) -> None:
    runs, batch = 3, 2
    x = normal(runs, batch, inputs, size // 2, size // 2, dtype=dtype)
    weight = normal(runs, inputs, outputs, 4, 4, dtype=dtype, seed=1)
    bias = normal(runs, outputs, dtype=dtype, seed=2)
    found, right = WAYS[way].conv_transpose(x, weight, bias), by_pytorch(F.conv_transpose2d, x, weight, bias)
    assert_equal([found], [right], dtype)
    arguments = (x, weight, bias)
    assert_equal(derivatives(found, arguments), derivatives(right, arguments), dtype)


@pytest.mark.parametrize("function", [convolutions._Product, convolutions._Transposed])
def test_the_products_on_streams_have_the_slopes_of_differences(
    function: type[torch.autograd.Function],
) -> None:
    arguments = (normal(1, 2, 2, 4, 4), normal(1, 2, 2, 4, 4, seed=1))
    for layout in (torch.contiguous_format, torch.channels_last):
        applied = partial(apply_in, function, layout)
        assert gradcheck(applied, arguments)
        assert gradgradcheck(applied, arguments)


def apply_in(
    function: type[torch.autograd.Function],
    layout: torch.memory_format,
    x: torch.Tensor,
    weight: torch.Tensor,
) -> torch.Tensor:
    product: torch.Tensor = function.apply(x, weight, layout)
    return product


@pytest.mark.parametrize("way", ["streams_nhwc", "grouped"])
def test_channels_stay_last_from_layer_to_layer(way: Convolution) -> None:
    x, weight, bias = normal(2, 3, 4, 8, 8), normal(2, 5, 4, 4, 4), normal(2, 5)
    y = WAYS[way].conv(x, weight, bias).relu()
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in y) or way == "grouped"
    assert y.stride(2) == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("model", "first"), [("beta_vae", "vae"), ("info_wgan_gp", "critic")])
def test_a_model_has_the_same_gradients_by_any_way(
    small_run: Callable[..., ResolvedRun],
    noise_images: Callable[..., Images],
    way: Convolution,
    model: str,
    first: str,
) -> None:
    """Of the network that is updated first: Adam makes large steps even of gradients that are rounding errors."""
    sizes = {"network": "conv", "critic.steps": 1} if model == "info_wgan_gp" else {"vae.network": "conv"}
    runs = [small_run(model, seed, sizes | {"batch_size": 4}, data="dsprites") for seed in range(3)]

    def gradients() -> torch.Tensor:
        pack = Pack(runs, noise_images(1, is_binary=True))
        pack.advance(1)
        return pack.model.optimizers[first].parameters.gradients_RP

    expected = gradients()
    with kernels.using(torch.device("cpu"), convolution=way):
        assert_equal([gradients()], [expected], torch.float32)


def test_kernels_are_chosen_for_a_while() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    before = kernels.chosen(cpu), kernels.chosen(gpu)
    with kernels.using(gpu, convolution="taps"):
        assert kernels.chosen(gpu).convolution == "taps"
        assert kernels.chosen(gpu).optimizer == before[1].optimizer
        assert kernels.chosen(cpu) == before[0]
    assert (kernels.chosen(cpu), kernels.chosen(gpu)) == before
