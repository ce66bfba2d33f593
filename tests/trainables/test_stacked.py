import copy
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from trainables import stacked

pytestmark = pytest.mark.usefixtures("arithmetic")

SHAPES = {"a.weight": (5, 7), "a.bias": (7,), "b.weight": (3, 2, 4, 4), "exact": (64,), "c": (1,)}
SETTINGS = (3e-3, 0.5, 0.9, 1e-8)
"""Learning rate, beta1, beta2 and epsilon."""


@pytest.fixture
def double() -> Iterator[None]:
    """Float64 for tensors made without a type: formulas are compared far below float32's rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parameters(num_runs: int) -> stacked.Parameters:
    made = stacked.Parameters(SHAPES, num_runs)
    for i, tensor in enumerate(made.tensors.values()):
        tensor.detach().copy_(normal(*tensor.shape, seed=i))
    return made


def fill_gradients(made: stacked.Parameters, seed: int) -> None:
    for i, gradient in enumerate(made.gradients.values()):
        gradient.copy_(normal(*gradient.shape, seed=100 * seed + i))


def test_parameters_are_views_of_one_row_a_run_and_start_on_multiples_of_64() -> None:
    made = parameters(3)
    assert made.num_parameters == 35 + 7 + 96 + 64 + 1
    assert made.values_RP.shape == made.gradients_RP.shape == (3, 64 + 64 + 128 + 64 + 64)
    for views, buffer_RP in ((made.tensors, made.values_RP), (made.gradients, made.gradients_RP)):
        for name, view in views.items():
            assert view.shape == (3, *SHAPES[name])
            for r in range(3):
                assert (view[r].data_ptr() - buffer_RP.data_ptr()) % (64 * 4) == 0
                assert (
                    buffer_RP[r].data_ptr()
                    <= view[r].data_ptr()
                    < buffer_RP[r].data_ptr() + 4 * buffer_RP.shape[1]
                )
    assert made.values_RP.count_nonzero() == 3 * made.num_parameters


def test_backward_writes_each_runs_gradient_of_a_summed_loss() -> None:
    made = parameters(3)
    for _ in range(2):
        made.backward(torch.stack([(t * t).sum() * 0.5 for t in made.tensors.values()]).sum())
        torch.testing.assert_close(made.gradients_RP, made.values_RP, rtol=0, atol=0)


@pytest.mark.usefixtures("double")
def test_adam_is_that_of_torch_one_run_at_a_time() -> None:
    made = parameters(3)
    references = [copy.deepcopy(made.values_RP[r]).requires_grad_() for r in range(3)]
    optimizers = [
        torch.optim.Adam([p], lr=3e-3, betas=(0.5, 0.9), eps=1e-8, foreach=False) for p in references
    ]
    adam = stacked.Adam(made, *SETTINGS)
    alive_R = torch.ones(3, dtype=torch.bool)
    for step in range(30):
        fill_gradients(made, step)
        made.gradients_RP[2].mul_(1e-9)
        for reference, optimizer, gradient in zip(references, optimizers, made.gradients_RP, strict=True):
            reference.grad = gradient.clone()
            optimizer.step()
        alive_R = adam.step(alive_R)
    assert alive_R.all()
    torch.testing.assert_close(made.values_RP, torch.stack(references), rtol=1e-13, atol=1e-13)


def test_padding_stays_zero() -> None:
    made = parameters(2)
    padding = made.values_RP == 0
    adam = stacked.Adam(made, *SETTINGS)
    for step in range(3):
        fill_gradients(made, step)
        adam.step(torch.ones(2, dtype=torch.bool))
    assert padding.any()
    for buffer_RP in (made.values_RP, adam.first_moment_RP, adam.second_moment_RP):
        assert (buffer_RP[padding] == 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_run_with_a_bad_gradient_keeps_its_last_finite_parameters_and_its_neighbors_do_not_feel_it(
    bad: float,
) -> None:
    made, undisturbed = parameters(4), parameters(4)
    adam, reference = (stacked.Adam(p, *SETTINGS) for p in (made, undisturbed))
    alive_R = everyone_R = torch.ones(4, dtype=torch.bool)
    for step in range(6):
        fill_gradients(made, step)
        fill_gradients(undisturbed, step)
        if step == 3:
            made.gradients["b.weight"][1, 2, 0, 3, 3] = bad
            last_P = made.values_RP[1].clone()
        alive_R = adam.step(alive_R)
        everyone_R = reference.step(everyone_R)
        assert alive_R.tolist() == [True, step < 3, True, True]
    assert torch.equal(made.values_RP[1], last_P)
    assert last_P.isfinite().all()
    others = torch.tensor([0, 2, 3])
    assert torch.equal(made.values_RP[others], undisturbed.values_RP[others])
    for name in ("first_moment_RP", "second_moment_RP"):
        assert torch.equal(getattr(adam, name)[others], getattr(reference, name)[others])


def test_a_run_that_is_dead_already_does_not_move() -> None:
    made = parameters(2)
    adam = stacked.Adam(made, *SETTINGS)
    before_P = made.values_RP[0].clone()
    fill_gradients(made, 0)
    assert adam.step(torch.tensor([False, True])).tolist() == [False, True]
    assert torch.equal(made.values_RP[0], before_P)


def test_a_gradient_whose_square_overflows_is_not_finite_for_adam() -> None:
    # Its second moment would be infinite for ever: the parameter stands still while the run looks alive.
    made = parameters(2)
    adam = stacked.Adam(made, *SETTINGS)
    fill_gradients(made, 0)
    made.gradients["a.bias"][0, 3] = 1e21
    alive_R = adam.step(torch.ones(2, dtype=torch.bool))
    assert alive_R.tolist() == [False, True]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("m", "k", "n"), [(16, 16, 16), (17, 16, 16), (1, 1, 1), (8, 2, 5), (33, 7, 50), (32, 3, 2)]
)
def test_products_are_those_of_each_run_with_their_gradients(m: int, k: int, n: int) -> None:
    a_RMK = normal(3, m, k).requires_grad_()
    b_RKN = normal(3, k, n, seed=1).requires_grad_()
    bias_RN = normal(3, n, seed=2).requires_grad_()
    each = [a @ b for a, b in zip(a_RMK, b_RKN, strict=True)]
    torch.testing.assert_close(stacked.matmul(a_RMK, b_RKN), torch.stack(each), rtol=1e-13, atol=1e-13)
    affine = [F.linear(a, b.T, bias) for a, b, bias in zip(a_RMK, b_RKN, bias_RN, strict=True)]
    found = stacked.linear(a_RMK, b_RKN, bias_RN)
    torch.testing.assert_close(found, torch.stack(affine), rtol=1e-13, atol=1e-13)
    inputs, slope = (a_RMK, b_RKN, bias_RN), normal(3, m, n, seed=3)
    for gradient, expected in zip(
        torch.autograd.grad(found, inputs, slope),
        torch.autograd.grad(torch.stack(affine), inputs, slope),
        strict=True,
    ):
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("batch", "inputs", "outputs", "size"), [(1, 1, 3, 4), (3, 5, 2, 6), (2, 3, 1, 8)])
def test_convolutions_are_those_of_a_module_a_run(
    transposed: bool, batch: int, inputs: int, outputs: int, size: int
) -> None:
    module, function = (
        (torch.nn.ConvTranspose2d, stacked.conv_transpose) if transposed else (torch.nn.Conv2d, stacked.conv)
    )
    modules = [module(inputs, outputs, 4, stride=2, padding=1) for _ in range(3)]
    x = normal(3, batch, inputs, size, size).requires_grad_()
    weight, bias = (torch.stack([getattr(m, name) for m in modules]).detach() for name in ("weight", "bias"))
    found = function(x, weight.requires_grad_(), bias.requires_grad_())
    expected = torch.stack([m(run) for m, run in zip(modules, x, strict=True)])
    side = 2 * size if transposed else size // 2
    assert found.shape == (3, batch, outputs, side, side)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    slope = normal(*found.shape, seed=1)
    for_modules = [p for name in ("weight", "bias") for p in (getattr(m, name) for m in modules)]
    gradients = torch.autograd.grad(found, [x, weight, bias], slope, retain_graph=True)
    x_slope, *each = torch.autograd.grad(expected, [x, *for_modules], slope)
    for gradient, reference in zip(
        gradients, (x_slope, torch.stack(each[:3]), torch.stack(each[3:])), strict=True
    ):
        torch.testing.assert_close(gradient, reference, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("image", [(1, 4, 8), (3, 5, 7), (1, 1, 1)])
def test_bernoulli_nats_are_the_summed_cross_entropy_with_its_gradient(image: tuple[int, int, int]) -> None:
    logits = (3 * normal(2, 5, *image)).requires_grad_()
    x = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1))
    found = stacked.bernoulli_nats(logits, x)
    pixels = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
    torch.testing.assert_close(found, pixels.flatten(2).sum(2), rtol=1e-13, atol=1e-13)
    weights_RB = normal(2, 5, seed=2)
    (gradient,) = torch.autograd.grad(found, logits, weights_RB)
    (expected,) = torch.autograd.grad(pixels.flatten(2).sum(2), logits, weights_RB)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-13)


def test_bernoulli_nats_without_their_value_have_the_same_gradient() -> None:
    logits = normal(2, 3, 1, 5, 7).requires_grad_()
    x = torch.rand(logits.shape, generator=torch.Generator().manual_seed(1))
    valued, bare = (stacked.bernoulli_nats(logits, x, is_valued=is_valued) for is_valued in (True, False))
    assert not bare.any()
    expected, found = (torch.autograd.grad(nats.mean(1).sum(), logits)[0] for nats in (valued, bare))
    assert torch.equal(found, expected)


def test_bernoulli_nats_stay_finite_at_certain_logits() -> None:
    logits = torch.tensor([1e4, -1e4, 1e4, -1e4]).view(1, 4, 1, 1, 1).requires_grad_()
    found = stacked.bernoulli_nats(logits, torch.tensor([1.0, 0.0, 0.0, 1.0]).view(1, 4, 1, 1, 1))
    assert found.flatten().tolist() == [0, 0, 1e4, 1e4]
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient.flatten().tolist() == [0, 0, 1, -1]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("shape", [(2, 3, 5), (3, 1, 1), (2, 4, 8)])
def test_gaussians_are_those_of_torch_with_gradients(shape: tuple[int, int, int]) -> None:
    mu_RBD, logvar_RBD = (normal(*shape, seed=i).requires_grad_() for i in range(2))
    posterior = torch.distributions.Normal(mu_RBD, (0.5 * logvar_RBD).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(stacked.gaussian_kl(mu_RBD, logvar_RBD), expected, rtol=1e-12, atol=1e-13)
    noise_RBD = normal(*shape, seed=2)
    z_RBD = stacked.gaussian_sample(mu_RBD, logvar_RBD, noise_RBD)
    torch.testing.assert_close((z_RBD - posterior.loc) / posterior.scale, noise_RBD, rtol=1e-12, atol=1e-12)
    assert gradcheck(stacked.gaussian_kl, (mu_RBD, logvar_RBD))
    assert gradcheck(lambda mu, logvar: stacked.gaussian_sample(mu, logvar, noise_RBD), (mu_RBD, logvar_RBD))


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("function", [torch.exp, torch.sigmoid, F.softplus])
def test_an_elementwise_function_gives_a_run_the_same_bits_in_every_slot(
    set_threads: Callable[[int], None], function: Callable[[torch.Tensor], torch.Tensor], num_threads: int
) -> None:
    set_threads(num_threads)
    # Counts around torch's threshold of 32,768 values for splitting a tensor between threads.
    for count in (35, 8283, 10_007, 64 * 256):
        run = 4 * normal(count, seed=count)
        for num_runs in (2, 3, 5, 7):
            stack = stacked.elementwise(function, run.expand(num_runs, count).contiguous())
            torch.testing.assert_close(stack[0], function(run), rtol=1e-6, atol=1e-7)
            assert all(torch.equal(slot, stack[0]) for slot in stack), (count, num_runs)
