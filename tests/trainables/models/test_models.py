"""The contract of every model, and each objective against its definition written plainly.

Shape suffixes: R runs, B batch, D latent dimensions.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._ops import OpOverload
from torch.distributions import Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode

from trainables import config, contracts, engine, fitting, plugins, stacked
from trainables.engine import ResolvedRun
from trainables.errors import InputError
from trainables.images import Images
from trainables.models import beta_vae, factor_vae
from trainables.models.networks import vae as networks
from trainables.models.networks.discriminator import Chain, discriminator_shapes, write_gradients
from trainables.random_inputs import ImageBatch, Integers, Permutations, Uniform
from trainables.random_inputs import Normal as NormalDraw

pytestmark = pytest.mark.usefixtures("arithmetic")

CPU = torch.device("cpu")
ENTRIES = plugins.names("trainables.models")
VAE = networks.Vae("mlp", latent_dim=3, width=10)
FAST = networks.Adam(1e-3)


def uniform_of(num_runs: int) -> networks.Uniform:
    generator = torch.Generator().manual_seed(0)
    return lambda _, count: torch.rand(num_runs, count, generator=generator)


def draw_for(
    model: contracts.Model, num_runs: int, image: tuple[int, int, int], seed: int
) -> dict[str, torch.Tensor]:
    """The draws of one step, made here by torch's own generator."""
    generator, drawn = torch.Generator().manual_seed(seed), {}
    for name, draw in model.random_inputs().items():
        match draw:
            case ImageBatch(size):
                drawn[name] = torch.rand(num_runs, size, *image, generator=generator)
            case NormalDraw(shape):
                drawn[name] = torch.randn(num_runs, *shape, generator=generator)
            case Uniform(shape):
                drawn[name] = torch.rand(num_runs, *shape, generator=generator)
            case Integers(high, count):
                drawn[name] = torch.randint(high, (num_runs, count), generator=generator)
            case Permutations(count, size):
                orders = [torch.randperm(size, generator=generator) for _ in range(num_runs * count)]
                drawn[name] = torch.stack(orders).view(num_runs, count, size)
    return drawn


def factor_vae_of(
    gammas: list[float],
    image: tuple[int, int, int] = (1, 4, 4),
    batch_size: int = 7,
    vae: networks.Vae = VAE,
    depth: int = 3,
    width: int = 9,
    learning_rate: float = 1e-3,
) -> factor_vae.Model:
    discriminator = factor_vae.Discriminator(depth, width, networks.Adam(learning_rate, 0.5, 0.9))
    configs = [factor_vae.Config(gamma, batch_size, vae, FAST, discriminator) for gamma in gammas]
    return factor_vae.Model(configs, image, uniform_of(len(gammas)), CPU)


def beta_vae_of(
    betas: list[float], image: tuple[int, int, int] = (1, 4, 4), batch_size: int = 7, vae: networks.Vae = VAE
) -> beta_vae.Model:
    configs = [beta_vae.Config(beta, batch_size, vae, FAST) for beta in betas]
    return beta_vae.Model(configs, image, uniform_of(len(betas)), CPU)


def everyone(num_runs: int) -> torch.Tensor:
    return torch.ones(num_runs, dtype=torch.bool)


# The contract.


@pytest.mark.parametrize("name", ENTRIES)
def test_a_model_declares_its_version_and_documents_every_field(name: str) -> None:
    module = plugins.load("trainables.models", name, "model")
    assert isinstance(module.VERSION, int)
    assert module.VERSION >= 1
    assert config.per_run_fields(module.Config())
    pending = [module.Config()]
    while pending:
        part = pending.pop()
        assert type(part).__dataclass_params__.frozen
        for field in dataclasses.fields(part):
            assert re.search(rf"^\s+{field.name}: \S", type(part).__doc__ or "", re.MULTILINE), field.name
            value = getattr(part, field.name)
            pending += [value] if dataclasses.is_dataclass(value) else []


@pytest.mark.parametrize("name", ENTRIES)
def test_an_update_gives_detached_values_of_each_run_and_draws_nothing_by_itself(
    name: str, small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    pack = engine.Pack([small_run(name, seed) for seed in range(3)], sprites)
    draw = draw_for(pack.model, 3, sprites.shape, 0)
    before = {key: value.clone() for key, value in draw.items()}
    states = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    found = pack.model.update(draw, everyone(3), is_reported=True)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state(legacy=False)["state"]["key"] == states[1]).all()  # noqa: NPY002
    assert all(torch.equal(draw[key], value) for key, value in before.items())
    assert found.pop("alive").tolist() == [True] * 3
    assert "loss" in found
    for value in found.values():
        assert value.shape == (3,)
        assert not value.requires_grad
        assert value.isfinite().all()


class NoWaiting(TorchDispatchMode):
    """Refuses constants of the host and sizes that depend on data: a GPU waits for both, a CUDA graph holds neither."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)  # mypy excuses untyped calls of torch only by name

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        assert func.name() not in ("aten::lift_fresh", "aten::nonzero"), func.name()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ENTRIES)
def test_an_update_never_waits_for_its_device(
    name: str, small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    pack = engine.Pack([small_run(name, seed) for seed in range(2)], sprites)
    draw = draw_for(pack.model, 2, sprites.shape, 0)
    with NoWaiting():
        pack.model.update(draw, everyone(2), is_reported=True)


@pytest.mark.parametrize("name", ENTRIES)
def test_whether_a_step_is_reported_changes_nothing_else(
    name: str, small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    packs = [engine.Pack([small_run(name, seed) for seed in range(2)], sprites) for _ in range(2)]
    for step in range(3):
        draw = draw_for(packs[0].model, 2, sprites.shape, step)
        for pack, is_reported in zip(packs, (True, False), strict=True):
            assert pack.model.update(draw, everyone(2), is_reported=is_reported)["alive"].all()
    quiet, reported = (pack.states() for pack in packs)
    for one, other in zip(quiet, reported, strict=True):
        assert all(one[key].tobytes() == other[key].tobytes() for key in one)


@pytest.mark.parametrize("name", ENTRIES)
def test_codes_and_reconstructions_have_the_declared_shapes(
    name: str, small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    pack = engine.Pack([small_run(name, seed) for seed in range(3)], sprites)
    x_RBCHW, num_codes = sprites.at(torch.arange(12).view(3, 4)), len(pack.model.discrete_D)
    mu_RBD, logvar_RBD = pack.model.encode(x_RBCHW)
    assert mu_RBD.shape == (3, 4, num_codes)
    decoded = pack.model.decode(mu_RBD)
    assert decoded.shape == x_RBCHW.shape
    assert 0 <= decoded.min() <= decoded.max() <= 1
    if pack.model.HAS_LIKELIHOOD:
        assert logvar_RBD is not None
        assert logvar_RBD.shape == mu_RBD.shape
        torch.testing.assert_close(
            decoded, cast(contracts.LikelihoodModel, pack.model).logits(mu_RBD).sigmoid()
        )
    else:
        assert logvar_RBD is None
    assert pack.model.traversal_DV.shape == (num_codes, networks.NUM_TRAVERSED)
    assert all(buffer_RP.shape[0] == 3 for buffer_RP in pack.model.buffers.values())
    assert set(pack.model.KEPT) <= set(pack.model.optimizers)
    weights = pack.weights()
    assert len(weights) == 3
    kept = sum(pack.num_parameters[network] for network in pack.model.KEPT)
    kept += sum(buffer_RP.shape[1] for buffer_RP in pack.model.buffers.values())
    assert sum(array.size for array in weights[0].values()) == kept


# The paper's networks.


def sizes(shapes: networks.Shapes, prefix: str = "") -> int:
    return sum(int(np.prod(shape)) for name, shape in shapes.items() if name.startswith(prefix))


@pytest.mark.parametrize(
    ("channels", "width", "encoder", "decoder"), [(1, 128, 249_172, 248_833), (3, 256, 383_956, 382_339)]
)
def test_the_papers_networks_have_the_papers_number_of_parameters(
    channels: int, width: int, encoder: int, decoder: int
) -> None:
    shapes = networks.vae_shapes(networks.Vae(latent_dim=10, width=width), (channels, 64, 64))
    assert (sizes(shapes, "encoder"), sizes(shapes, "decoder")) == (encoder, decoder)
    assert sizes(shapes) == encoder + decoder


def test_the_default_factor_vae_is_that_of_2d_shapes() -> None:
    default = factor_vae.Config()
    assert sizes(networks.vae_shapes(default.vae, (1, 64, 64))) == 498_005
    settings = default.discriminator
    shapes = discriminator_shapes(default.vae.latent_dim, settings.depth, settings.width)
    assert sizes(shapes) == 5_018_002
    assert default.batch_size == beta_vae.Config().batch_size == 64
    assert (default.adam, settings.adam) == (
        networks.Adam(1e-4, 0.9, 0.999, 1e-8),
        networks.Adam(1e-4, 0.5, 0.9, 1e-8),
    )


def test_weights_start_glorot_uniform_and_biases_at_zero() -> None:
    model = factor_vae_of([1.0] * 2, width=200)
    for name, tensor in [*model.vae.tensors.items(), *model.discriminator.tensors.items()]:
        if name.endswith("bias"):
            assert not tensor.any()
        else:
            bound = np.sqrt(6 / (tensor.shape[1] + tensor.shape[2]))
            assert 0.9 * bound < tensor.abs().max() <= bound
            assert not torch.equal(tensor[0], tensor[1])
    convolutions = beta_vae_of([1.0] * 2, (1, 64, 64), vae=networks.Vae(width=8)).vae.tensors
    first = convolutions["encoder.conv1.weight"]
    assert 0.9 < first.abs().max() / np.sqrt(6 / (16 * (1 + 32))) <= 1


def test_weights_may_start_normal_but_upconvolutions_as_in_pytorch() -> None:
    vae = networks.Vae(width=64, initialization="normal")
    tensors = beta_vae_of([1.0] * 2, (1, 64, 64), vae=vae).vae.tensors
    ours = {"weight": nn.ConvTranspose2d(32, 1, 4, 2, 1).weight, "bias": torch.zeros(0)}
    assert tensors["decoder.conv1.weight"].shape[1:] == ours["weight"].shape
    for name, tensor in tensors.items():
        if name.startswith("decoder.conv"):
            outputs = tensors[f"{name.rpartition('.')[0]}.weight"].shape[2]
            bound = 1 / np.sqrt(outputs * 16)
            assert 0.6 * bound < tensor.abs().max() <= bound, name
            assert tensor.numel() < 100 or abs(tensor.std() / bound - 1 / np.sqrt(3)) < 0.05
        elif name.endswith("bias"):
            assert not tensor.any()
        else:
            assert abs(tensor.std() / 0.02 - 1) < 0.1, name
            assert abs(tensor.mean()) < 0.003, name
    assert ours["weight"].abs().max() <= 1 / np.sqrt(16)
    layer = factor_vae_of([1.0] * 2, vae=vae, image=(1, 64, 64), width=200).discriminator.tensors
    assert abs(layer["discriminator.layer2.weight"].std() / 0.02 - 1) < 0.05


# Algorithm 2, written plainly.


class Reference:
    """One FactorVAE in ordinary modules: Algorithm 2 of Kim & Mnih, a line a statement.

    `beta` weighs the KL: a beta-VAE is gamma = 0 without a discriminator's use.
    """

    def __init__(
        self, model: beta_vae.Model | factor_vae.Model, r: int, gamma: float, beta: float = 1.0
    ) -> None:
        self.gamma, self.beta, self.config = gamma, beta, model.config
        vae = model.config.vae
        self.encoder, self.decoder = (conv_vae if vae.network == "conv" else mlp_vae)(vae, model.image)
        self.vae = nn.ModuleList([self.encoder, self.decoder])
        copy_weights(self.vae, model.vae, r)
        self.vae_adam = torch.optim.Adam(self.vae.parameters(), **torch_settings(model.config.adam))
        if isinstance(model, factor_vae.Model):
            settings = model.config.discriminator
            pairs = itertools.pairwise([vae.latent_dim, *[settings.width] * settings.depth])
            hidden = [layer for i, o in pairs for layer in (nn.Linear(i, o), nn.LeakyReLU(0.2))]
            self.discriminator = nn.Sequential(*hidden, nn.Linear(settings.width, 2))
            copy_weights(self.discriminator, model.discriminator, r)
            adam = torch_settings(settings.adam)
            self.discriminator_adam = torch.optim.Adam(self.discriminator.parameters(), **adam)

    def sample(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[Normal, torch.Tensor]:
        mu, logvar = self.encoder(x).chunk(2, dim=1)
        posterior = Normal(mu, torch.exp(logvar / 2))
        return posterior, posterior.loc + posterior.scale * noise

    def update(self, draw: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        x = draw["batch a"]
        posterior, z = self.sample(x, draw["noise a"])
        size = len(x)
        recon = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum") / size
        kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum() / size
        values = {"recon": recon, "kl": kl}
        loss = recon + self.beta * kl
        if hasattr(self, "discriminator"):
            log_d = F.log_softmax(self.discriminator(z), dim=1)
            values["tc"] = (log_d[:, 0] - log_d[:, 1]).mean()
            loss = loss + self.gamma * values["tc"]
        self.vae_adam.zero_grad()
        loss.backward()
        self.vae_adam.step()
        if hasattr(self, "discriminator"):
            self.update_discriminator(z.detach(), draw)
        return values | {"loss": loss}

    def update_discriminator(self, z: torch.Tensor, draw: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            _, other = self.sample(draw["batch b"], draw["noise b"])
        columns = [other[order, d] for d, order in enumerate(draw["permutation"])]
        permuted = torch.stack(columns, dim=1)
        real, fake = (torch.full((len(z),), label) for label in (0, 1))
        loss = 0.5 * (
            F.cross_entropy(self.discriminator(z), real) + F.cross_entropy(self.discriminator(permuted), fake)
        )
        self.discriminator_adam.zero_grad()
        loss.backward()
        self.discriminator_adam.step()


def torch_settings(adam: networks.Adam) -> dict[str, Any]:
    return {"lr": adam.learning_rate, "betas": (adam.beta1, adam.beta2), "eps": adam.epsilon}


def mlp_vae(vae: networks.Vae, image: tuple[int, int, int]) -> tuple[nn.Sequential, nn.Sequential]:
    pixels, w, d = int(np.prod(image)), vae.width, vae.latent_dim
    encoder = [nn.Flatten(), nn.Linear(pixels, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU(), nn.Linear(w, 2 * d)]
    decoder = [nn.Linear(d, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU(), nn.Linear(w, pixels)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder, nn.Unflatten(1, image))


def conv_vae(vae: networks.Vae, image: tuple[int, int, int]) -> tuple[nn.Sequential, nn.Sequential]:
    """Tables 1 and 2 of the paper for 64 x 64 images; for others one layer less, or more of 64 channels."""
    c, w, d = image[0], vae.width, vae.latent_dim
    further = [(64, 64)] * {32: 0, 64: 1, 128: 2, 256: 3}[image[1]]
    pairs = [(c, 32), (32, 32), (32, 64), *further]
    up = [layer for o, i in reversed(pairs) for layer in (nn.ConvTranspose2d(i, o, 4, 2, 1), nn.ReLU())]
    encoder = [
        *(layer for i, o in pairs for layer in (nn.Conv2d(i, o, 4, 2, 1), nn.ReLU())),
        *(nn.Flatten(), nn.Linear(1024, w), nn.ReLU() if vae.hidden_relu else nn.Identity()),
        nn.Linear(w, 2 * d),
    ]
    decoder = [
        *(nn.Linear(d, w), nn.ReLU(), nn.Linear(w, 1024), nn.ReLU(), nn.Unflatten(1, (64, 4, 4))),
        *up[:-1],
    ]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def in_modules(tensor: torch.Tensor) -> torch.Tensor:
    """A stacked layer's weight is (inputs, outputs), a module's (outputs, inputs)."""
    return tensor.T if tensor.dim() == 2 else tensor


def copy_weights(module: nn.Module, parameters: stacked.Parameters, r: int) -> None:
    with torch.no_grad():
        for parameter, tensor in zip(module.parameters(), parameters.tensors.values(), strict=True):
            parameter.copy_(in_modules(tensor[r]))


def assert_same_weights(module: nn.Module, parameters: stacked.Parameters, r: int) -> None:
    for parameter, (name, tensor) in zip(module.parameters(), parameters.tensors.items(), strict=True):
        # Adam divides by |g| + 1e-8, which magnifies float64's rounding of tiny gradients to some 1e-11.
        torch.testing.assert_close(
            in_modules(tensor[r]), parameter, rtol=1e-8, atol=1e-9, msg=partial("{}: {}".format, name)
        )


MLP_CASES = [(VAE, (1, 4, 4), 7, 12), (networks.Vae("mlp", 5, 8), (3, 3, 5), 16, 6)]
CONV_CASES = [
    (networks.Vae("conv", 3, 5), (1, 64, 64), 3, 2),
    (networks.Vae("conv", 2, 4, False), (3, 64, 64), 2, 1),
    (networks.Vae("conv", 3, 5), (5, 32, 32), 3, 2),
    (networks.Vae("conv", 2, 4), (3, 128, 128), 2, 1),
    (networks.Vae("conv", 2, 4), (1, 256, 256), 2, 1),
]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("vae", "image", "batch_size", "num_steps"), MLP_CASES + CONV_CASES)
def test_factor_vae_is_algorithm_2(
    vae: networks.Vae, image: tuple[int, int, int], batch_size: int, num_steps: int
) -> None:
    gammas = [0.0, 3.0, 40.0]
    model = factor_vae_of(gammas, image, batch_size, vae)
    references = [Reference(model, r, gamma) for r, gamma in enumerate(gammas)]
    for step in range(num_steps):
        draw = draw_for(model, 3, image, step)
        found = model.update(draw, everyone(3), is_reported=True)
        for r, reference in enumerate(references):
            expected = reference.update({name: values[r] for name, values in draw.items()})
            for name, value in expected.items():
                torch.testing.assert_close(found[name][r], value, rtol=1e-9, atol=1e-10)
    for r, reference in enumerate(references):
        assert_same_weights(reference.vae, model.vae, r)
        assert_same_weights(reference.discriminator, model.discriminator, r)


@pytest.mark.usefixtures("double")
def test_beta_vae_is_its_definition() -> None:
    betas = [0.0, 1.0, 8.0]
    model = beta_vae_of(betas)
    references = [Reference(model, r, 0.0, beta) for r, beta in enumerate(betas)]
    for step in range(12):
        draw = draw_for(model, 3, model.image, step)
        found = model.update(draw, everyone(3), is_reported=True)
        for r, reference in enumerate(references):
            for name, value in reference.update({n: values[r] for n, values in draw.items()}).items():
                torch.testing.assert_close(found[name][r], value, rtol=1e-9, atol=1e-10)
    for r, reference in enumerate(references):
        assert_same_weights(reference.vae, model.vae, r)


@pytest.mark.usefixtures("double")
def test_float32_gradients_are_those_of_float64_up_to_rounding() -> None:
    exact = factor_vae_of([0.0, 40.0], batch_size=33)
    draw = draw_for(exact, 2, exact.image, 0)
    torch.set_default_dtype(torch.float32)
    model = factor_vae_of([0.0, 40.0], batch_size=33)
    for name, adam in model.optimizers.items():
        adam.parameters.values_RP.copy_(exact.optimizers[name].parameters.values_RP)
    model.update(
        {n: v.float() if v.is_floating_point() else v for n, v in draw.items()}, everyone(2), is_reported=True
    )
    torch.set_default_dtype(torch.float64)
    exact.update(draw, everyone(2), is_reported=True)
    for name, adam in exact.optimizers.items():
        expected_RP = adam.parameters.gradients_RP
        found_RP = model.optimizers[name].parameters.gradients_RP
        assert found_RP.dtype == torch.float32
        assert (found_RP - expected_RP).norm() < 1e-5 * expected_RP.norm()


# The faults of others.


def after_one_update(
    changes: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] | None = None, learning_rate: float = 1e-3
) -> factor_vae.Model:
    """A model after a step; changes maps draws to functions of what would have been drawn."""
    model = factor_vae_of([40.0, 0.5], learning_rate=learning_rate)
    draw = draw_for(model, 2, model.image, 0)
    draw |= {name: change(draw[name]) for name, change in (changes or {}).items()}
    model.update(draw, everyone(2), is_reported=True)
    return model


def test_the_discriminators_loss_does_not_reach_the_encoder() -> None:
    expected = after_one_update()
    others = [
        after_one_update({"batch b": lambda x_RBCHW: 1 - x_RBCHW}),
        after_one_update({"noise b": lambda noise_RBD: 3 * noise_RBD}),
        after_one_update({"permutation": lambda order_RDB: order_RDB.roll(1, dims=1)}),
        after_one_update(learning_rate=0.5),
    ]
    for model in others:
        assert torch.equal(model.vae.gradients_RP, expected.vae.gradients_RP)
        assert torch.equal(model.vae.values_RP, expected.vae.values_RP)
        assert not torch.allclose(model.discriminator.values_RP, expected.discriminator.values_RP)


def test_permutations_mix_every_dimension_over_the_batch_and_nothing_inside_a_sample(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    pack = engine.Pack([small_run("factor_vae", seed, {"batch_size": 17}) for seed in range(3)], sprites)
    drawn = pack.generate_inputs(torch.arange(2))
    for t in range(2):
        draw = pack.gathered({name: values[t] for name, values in drawn.items()})
        order_RDB = draw["permutation"]
        assert order_RDB.shape == (3, 6, 17)
        assert torch.equal(order_RDB.sort(dim=2).values, torch.arange(17).expand(3, 6, 17))
        assert len(order_RDB.flatten(0, 1).unique(dim=0)) == 18
        assert not torch.equal(draw["batch a"], draw["batch b"])
        assert not torch.equal(draw["noise a"], draw["noise b"])


@pytest.mark.usefixtures("double")
def test_the_discriminator_sees_the_same_values_of_each_dimension_in_another_order() -> None:
    # Its loss is a mean over the batch: one order for all dimensions is no change, an order for each one is.
    def gradients(*orders: list[int]) -> torch.Tensor:
        order_RDB = torch.tensor(orders).expand(2, 3, 7)
        return after_one_update({"permutation": lambda _: order_RDB}).discriminator.gradients_RP

    in_place, shuffled = list(range(7)), [3, 0, 6, 1, 5, 2, 4]
    kept = gradients(in_place)
    torch.testing.assert_close(gradients(shuffled), kept, rtol=0, atol=1e-12)
    mixed = gradients(in_place, shuffled, in_place[::-1])
    assert (mixed - kept).abs().max() > 1e-6


def test_beta_vae_at_1_and_factor_vae_at_0_have_the_same_bits(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    packs = [
        engine.Pack([small_run(model, seed, {weight: value}) for seed in range(3)], sprites)
        for model, weight, value in (("beta_vae", "beta", 1), ("factor_vae", "gamma", 0))
    ]
    for pack in packs:
        pack.advance(50)
    first, second = packs
    assert torch.equal(*(pack.model.optimizers["vae"].parameters.values_RP for pack in packs))
    for one, other in zip(first.statistics(), second.statistics(), strict=True):
        assert (one["recon"], one["kl"]) == (other["recon"], other["kl"])


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("copies", [2, 9])
def test_losses_and_gradients_are_per_image_whatever_the_batch_size(copies: int) -> None:
    # The permutation differs with the batch, so only batch A, which the VAE learns from, is repeated.
    small, large = (factor_vae_of([0.0, 40.0], batch_size=5 * times) for times in (1, copies))
    draw = draw_for(small, 2, small.image, 0)
    repeated = draw_for(large, 2, large.image, 0)
    repeated |= {name: torch.cat([draw[name]] * copies, dim=1) for name in ("batch a", "noise a")}
    found, expected = (
        large.update(repeated, everyone(2), is_reported=True),
        small.update(draw, everyone(2), is_reported=True),
    )
    for name in ("loss", "recon", "kl", "tc"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(large.vae.gradients_RP, small.vae.gradients_RP, rtol=1e-10, atol=1e-12)


def test_reconstruction_is_summed_over_pixels_in_nats() -> None:
    model = beta_vae_of([1.0, 1.0], image=(3, 8, 8), batch_size=4)
    for tensor in model.vae.tensors.values():
        tensor.detach().zero_()
    found = model.update(draw_for(model, 2, model.image, 0), everyone(2), is_reported=True)
    torch.testing.assert_close(found["recon"], torch.full((2,), 3 * 8 * 8 * np.log(2), dtype=torch.float32))
    assert found["kl"].tolist() == [0, 0]


# The discriminator's chain.


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("latent_dim", "depth", "width", "batch"), [(1, 1, 1, 2), (3, 2, 7, 5), (6, 4, 16, 16)]
)
def test_the_chain_and_the_gradients_are_those_of_autograd(
    latent_dim: int, depth: int, width: int, batch: int
) -> None:
    model = factor_vae_of([1.0] * 3, depth=depth, width=width, vae=networks.Vae("mlp", latent_dim, 4))
    tensors = model.discriminator.tensors
    generator = torch.Generator().manual_seed(1)
    z_RBD, permuted_RBD = torch.randn(2, 3, batch, latent_dim, generator=generator)
    z_RBD.requires_grad_()

    def logits(x_RBD: torch.Tensor) -> torch.Tensor:
        for layer in range(1, depth + 2):
            weight, bias = (tensors[f"discriminator.layer{layer}.{name}"] for name in ("weight", "bias"))
            x_RBD = torch.einsum("rbi,rio->rbo", x_RBD, weight) + bias[:, None]
            x_RBD = F.leaky_relu(x_RBD, 0.2) if layer <= depth else x_RBD
        return x_RBD

    real, permuted = Chain(tensors, z_RBD.detach()), Chain(tensors, permuted_RBD)
    ratio_RB = logits(z_RBD)[..., 0] - logits(z_RBD)[..., 1]
    torch.testing.assert_close(real.log_ratio_RB, ratio_RB, rtol=1e-12, atol=1e-13)
    (slope_RBD,) = torch.autograd.grad(ratio_RB.sum(), z_RBD)
    torch.testing.assert_close(real.input_slope_RBD, slope_RBD, rtol=1e-12, atol=1e-13)

    log_real = F.log_softmax(logits(z_RBD), 2)[..., 0].mean(1)
    log_permuted = F.log_softmax(logits(permuted_RBD), 2)[..., 1].mean(1)
    expected = torch.autograd.grad(-0.5 * (log_real + log_permuted).sum(), list(tensors.values()))
    scales = (-torch.sigmoid(-real.log_ratio_RB), torch.sigmoid(permuted.log_ratio_RB))
    gradients = model.discriminator.gradients
    write_gradients(gradients, (real, permuted), [0.5 / batch * scale for scale in scales])
    for (name, gradient), exact in zip(gradients.items(), expected, strict=True):
        torch.testing.assert_close(
            gradient, exact, rtol=1e-10, atol=1e-13, msg=partial("{}: {}".format, name)
        )


# Images of any size.


@pytest.mark.parametrize(("side", "encoder"), [(32, 184_596), (64, 250_196), (128, 315_796), (256, 381_396)])
def test_a_doubled_side_has_one_more_layer_of_64_channels(side: int, encoder: int) -> None:
    """On CelebA's channels, with the width of 2D Shapes; a layer of 64 channels has 16 * 64 * 64 + 64 parameters."""
    shapes = networks.vae_shapes(networks.Vae("conv"), (3, side, side))
    further = {32: 0, 64: 1, 128: 2, 256: 3}[side]
    convolutions = 16 * (3 * 32 + 32 * 32 + 32 * 64 + further * 64 * 64) + 32 + 32 + 64 + further * 64
    assert sizes(shapes, "encoder") == convolutions + 1024 * 128 + 128 + 128 * 20 + 20 == encoder
    assert shapes["encoder.hidden.weight"] == (1024, 128)
    assert sizes(shapes, "decoder") == (
        convolutions - 32 - 32 - 64 - further * 64  # biases of the same layers, towards the image
        + (3 + 32 + 32 + further * 64)
        + 10 * 128 + 128 + 128 * 1024 + 1024
    )  # fmt: skip


@pytest.mark.parametrize("side", [32, 64, 128, 256])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_codes_and_images_have_the_right_shapes_at_any_size(side: int, channels: int) -> None:
    image = (channels, side, side)
    model = beta_vae_of([1.0] * 2, image, batch_size=1, vae=networks.Vae("conv", 3, 4))
    mu, logvar = model.encode(torch.rand(2, 1, *image))
    assert mu.shape == logvar.shape == (2, 1, 3)
    assert model.decode(mu).shape == (2, 1, *image)


@pytest.mark.parametrize("size", [(16, 16), (48, 48), (512, 512), (64, 32), (32, 64), (65, 65), (2, 2)])
@pytest.mark.parametrize(("model", "field"), [("beta_vae", "vae.network"), ("info_wgan_gp", "network")])
def test_other_sizes_fit_the_mlp_and_refuse_convolutions(
    model: str, field: str, size: tuple[int, int]
) -> None:
    module, image = contracts.model(model), (1, *size)
    fit = fitting.fitted(module.Config(), image)
    assert config.flatten(fit)[field] == "mlp"
    module.check_shape(fit, image)
    with pytest.raises(InputError) as error:
        module.check_shape(config.replace(module.Config(), {field: "conv"}), image)
    assert str(error.value).splitlines() == [
        f"{field}=conv takes square images of 32, 64, 128 or 256 pixels a side; these are {size[0]} x {size[1]}.",
        f"Use --set {field}=auto, which fits the images, or --set {field}=mlp.",
    ]
