"""A chain of convolutions gives what PyTorch's own layers give, run by run, and leaves ghosts to the first run."""

from collections.abc import Callable
from itertools import pairwise
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from trainables import conv_chains, convolutions
from trainables.conv_chains import Layer
from trainables.engine import Pack, ResolvedRun
from trainables.images import Images

pytestmark = pytest.mark.usefixtures("arithmetic")

RUNS, BATCH, SIDE = 3, 2, 16
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-4}
"""Relative error in the norm of a result or slope; measured 4e-15 and 1e-6."""

Chain = Callable[[Tensor, list[Layer]], Tensor]


def down_by_pytorch(x_R: Tensor, layers: list[Layer]) -> Tensor:
    return torch.stack([down_of_one(x, [(w[r], b[r]) for w, b in layers]) for r, x in enumerate(x_R)])


def down_of_one(x: Tensor, layers: list[Layer]) -> Tensor:
    for weight, bias in layers:
        x = F.relu(F.conv2d(x, weight, bias, stride=2, padding=1))
    return x


def up_by_pytorch(x_R: Tensor, layers: list[Layer]) -> Tensor:
    return torch.stack([up_of_one(x, [(w[r], b[r]) for w, b in layers]) for r, x in enumerate(x_R)])


def up_of_one(x: Tensor, layers: list[Layer]) -> Tensor:
    for number, (weight, bias) in enumerate(layers, 1):
        x = F.conv_transpose2d(x, weight, bias, stride=2, padding=1)
        x = F.relu(x) if number < len(layers) else x
    return x


def case(
    way: str, channels: tuple[int, ...], dtype: torch.dtype = torch.float64, *, num_runs: int = RUNS
) -> tuple[Chain, Chain, Tensor, list[Layer]]:
    """A chain, the same by PyTorch, and their input and layers; channels from the image on."""
    generator = torch.Generator().manual_seed(len(channels))

    def numbers(*shape: int) -> Tensor:
        return torch.randn(num_runs, *shape, generator=generator, dtype=dtype).requires_grad_()

    small = SIDE >> (len(channels) - 1)
    if way == "down":
        sizes = [((outputs, inputs, 4, 4), outputs) for inputs, outputs in pairwise(channels)]
        x = numbers(BATCH, channels[0], SIDE, SIDE)
        return conv_chains.down, down_by_pytorch, x, [(numbers(*w), numbers(b)) for w, b in sizes]
    sizes = [((inputs, outputs, 4, 4), outputs) for inputs, outputs in pairwise(channels[::-1])]
    x = numbers(BATCH, channels[-1], small, small)
    return conv_chains.up, up_by_pytorch, x, [(numbers(*w), numbers(b)) for w, b in sizes]


def slopes(y: Tensor, x: Tensor, layers: list[Layer]) -> list[Tensor]:
    return list(torch.autograd.grad(y.sin().sum(), [x, *[each for layer in layers for each in layer]]))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels", [(1, 6), (1, 32, 32), (3, 8, 5, 4), (4, 5, 6), (5, 4, 3)])
@pytest.mark.parametrize("way", ["down", "up"])
def test_a_chain_and_its_slopes_are_those_of_ordinary_layers(
    way: str, channels: tuple[int, ...], dtype: torch.dtype
) -> None:
    chain, by_pytorch, x, layers = case(way, channels, dtype)
    found, right = chain(x, layers), by_pytorch(x, layers)
    assert found.shape == right.shape
    pairs = [(found, right), *zip(slopes(found, x, layers), slopes(right, x, layers), strict=True)]
    for value, expected in pairs:
        assert (value - expected).norm() <= TOLERANCE[dtype] * expected.norm()
    with torch.no_grad():
        assert torch.equal(chain(x, layers), found)


@pytest.mark.parametrize("way", ["down", "up"])
def test_the_slope_that_a_chain_gets_and_its_input_are_not_changed(way: str) -> None:
    chain, _, x, layers = case(way, (1, 4, 4))
    y = chain(x, layers)
    slope = torch.randn_like(y).permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    before = slope.clone(), x.detach().clone()
    first = torch.autograd.grad(y, x, slope, retain_graph=True)
    assert torch.equal(slope, before[0])
    assert torch.equal(x, before[1])
    assert torch.equal(first[0], torch.autograd.grad(chain(x, layers), x, slope)[0])


@pytest.mark.parametrize("way", ["down", "up"])
def test_a_run_does_not_depend_on_its_neighbors(way: str) -> None:
    chain, _, x, layers = case(way, (1, 8, 8), torch.float32)
    together = chain(x, layers)
    for r in (0, 2):
        alone = [(w[r : r + 1].detach().requires_grad_(), b[r : r + 1].detach()) for w, b in layers]
        assert torch.equal(chain(x[r : r + 1], alone)[0], together[r])


@pytest.mark.parametrize("way", ["down", "up"])
def test_the_first_run_stands_for_ghosts(way: str) -> None:
    """They get its results and slopes, whatever their own weights are: they are not computed."""
    chain, _, x, layers = case(way, (1, 4, 4))
    with convolutions.of_first_runs(2):
        y = chain(x, layers)
        found = slopes(y, x, layers)
    assert torch.equal(y[2], y[0])
    assert all(torch.equal(each[2], each[0]) for each in found)
    full = chain(x, layers)
    assert torch.equal(full[:2], y[:2])
    assert not torch.equal(full[2], full[0])
    assert convolutions.num_computed(5) == 5


def test_the_ghost_of_a_lone_run_costs_no_convolutions(
    small_run: Callable[..., ResolvedRun],
    noise_images: Callable[..., Images],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[tuple[int, ...]] = []
    conv2d = F.conv2d

    def counted(x: Tensor, *arguments: object, **options: object) -> Tensor:
        calls.append(tuple(x.shape))
        return cast(Callable[..., Tensor], conv2d)(x, *arguments, **options)

    def num_calls(num_runs: int) -> int:
        runs = [
            small_run("factor_vae", seed, {"vae.network": "conv", "batch_size": 4}, data="dsprites")
            for seed in range(num_runs)
        ]
        pack = Pack(runs, noise_images(1, is_binary=True))
        calls.clear()
        pack.advance(1)
        return len(calls)

    monkeypatch.setattr(F, "conv2d", counted)
    alone = num_calls(1)
    assert alone > 0
    assert num_calls(3) == 3 * alone


def test_a_chain_says_that_it_can_be_differentiated_once() -> None:
    chain, _, x, layers = case("down", (1, 4))
    with pytest.raises(RuntimeError, match="Use stacked"):
        torch.autograd.grad(chain(x, layers).sum(), x, create_graph=True)
