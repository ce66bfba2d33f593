"""InfoWGAN-GP: its terms in closed form, which network each of them trains, and the step written plainly."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from trainables import engine, stacked
from trainables.engine import ResolvedRun
from trainables.images import Images
from trainables.models import info_wgan_gp
from trainables.models.info_wgan_gp import Config, Critic, Generator
from trainables.models.networks import gan, vae

pytestmark = pytest.mark.usefixtures("arithmetic")

FAST = vae.Adam(1e-2, 0.5, 0.9)
IMAGE = (1, 4, 4)


def model_of(
    informations: tuple[float, ...] = (0.2, 0.2), image: tuple[int, int, int] = IMAGE, **fields: Any
) -> info_wgan_gp.Model:
    generator = torch.Generator().manual_seed(0)
    known: dict[str, Any] = {"batch_size": 6, "network": "mlp", "width": 9, "continuous": 2, "categories": 3}
    settings = known | {"critic": Critic(2, 10.0, FAST), "generator": Generator(4, FAST)} | fields
    configs = [Config(information, **settings) for information in informations]

    def uniform(_: str, count: int) -> torch.Tensor:
        return torch.rand(len(configs), count, generator=generator)

    return info_wgan_gp.Model(configs, image, uniform, torch.device("cpu"))


def draw_of(model: info_wgan_gp.Model, seed: int = 0) -> dict[str, torch.Tensor]:
    generator, num_runs = torch.Generator().manual_seed(seed), len(model.information_R)
    size = model.config.batch_size
    drawn = {}
    for name in model.random_inputs():
        if name.startswith("batch"):
            drawn[name] = torch.rand(num_runs, size, *model.image, generator=generator)
        elif name.startswith("category"):
            drawn[name] = torch.randint(model.config.categories, (num_runs, size), generator=generator)
        elif name.startswith("place"):
            drawn[name] = torch.rand(num_runs, size, generator=generator)
        else:
            width = model.config.continuous + model.config.generator.noise_dim
            drawn[name] = torch.rand(num_runs, size, width, generator=generator)
    return drawn


def alive(num_runs: int = 2) -> torch.Tensor:
    return torch.ones(num_runs, dtype=torch.bool)


def test_the_penalty_of_a_linear_critic_is_the_square_of_its_slope_less_one() -> None:
    """Large biases keep every leaky ReLU on its linear side."""
    model = model_of()
    with torch.no_grad():
        for layer, bias in (("trunk.hidden1", 1e2), ("trunk.hidden2", 1e4)):
            model.critic.tensors[f"{layer}.bias"].fill_(bias)
    weights = [
        model.critic.tensors[f"{name}.weight"] for name in ("trunk.hidden1", "trunk.hidden2", "critic.out")
    ]
    slope_RP = (weights[0] @ weights[1] @ weights[2])[..., 0]
    generator = torch.Generator().manual_seed(1)
    real, fake = (torch.rand(2, 6, *IMAGE, generator=generator) for _ in range(2))
    found = model.penalty(real, fake, torch.rand(2, 6, generator=generator))
    torch.testing.assert_close(found, (slope_RP.norm(dim=1) - 1).square())


def test_a_flat_critic_is_pushed_and_not_broken() -> None:
    model = model_of()
    with torch.no_grad():
        model.critic.values_RP.zero_()
    real, fake = torch.rand(2, 2, 6, *IMAGE)
    penalty_R = model.penalty(real, fake, torch.rand(2, 6))
    torch.testing.assert_close(penalty_R, torch.ones(2), atol=1e-5, rtol=0)
    tensors = list(model.critic.tensors.values())
    slopes = torch.autograd.grad(penalty_R.sum(), tensors, allow_unused=True)
    assert all(slope.isfinite().all() for slope in slopes if slope is not None)


def test_the_penalty_is_taken_between_real_and_generated_images() -> None:
    model = model_of()
    real, fake = torch.rand(2, 2, 6, *IMAGE)
    at_ends = [model.penalty(real, fake, torch.full((2, 6), place)) for place in (0.0, 1.0)]
    torch.testing.assert_close(at_ends[0], model.penalty(real, real, torch.rand(2, 6)))
    torch.testing.assert_close(at_ends[1], model.penalty(fake, fake, torch.rand(2, 6)))


@pytest.mark.parametrize("term", ["wasserstein", "penalty", "information", "generator"])
def test_each_term_trains_the_networks_that_it_may(term: str) -> None:
    model = model_of()
    drawn = draw_of(model)
    continuous, category, inputs = model._inputs(drawn, "generator")
    real, fake = drawn["batch critic 0"], model.generate(inputs, by_batch=True)
    score_RB, features = gan.criticize(model.critic.tensors, fake, "mlp")
    value = {
        "wasserstein": lambda: model._wasserstein(real, fake.detach())[0],
        "penalty": lambda: model.penalty(real, fake.detach(), drawn["place critic 0"]),
        "information": lambda: model._miss(model.critic.tensors, features, continuous, category),
        "generator": lambda: -score_RB.mean(1),
    }[term]().sum()
    everything = model.critic.tensors | model.generator.tensors
    slopes = torch.autograd.grad(value, list(everything.values()), allow_unused=True)
    # A bias of the critic's last layer cancels between real and generated images.
    moved = {
        name.split(".")[0]
        for name, slope in zip(everything, slopes, strict=True)
        if slope is not None and slope.abs().max() > 1e-7
    }
    assert (
        moved
        == {
            "wasserstein": {"trunk", "critic"},
            "penalty": {"trunk", "critic"},
            "information": {"trunk", "q", "generator"},
            "generator": {"trunk", "critic", "generator"},
        }[term]
    )


def test_a_step_moves_each_network_by_its_own_optimizer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its optimizer held still a network stays, whatever the other's losses."""
    for still, moving in (("critic", "generator"), ("generator", "critic")):
        model = model_of()
        monkeypatch.setattr(model.optimizers[still], "step", lambda alive_R: alive_R)
        before = {name: adam.parameters.values_RP.clone() for name, adam in model.optimizers.items()}
        assert model.update(draw_of(model), alive(), is_reported=True)["alive"].all()
        assert torch.equal(before[still], model.optimizers[still].parameters.values_RP)
        assert not torch.equal(before[moving], model.optimizers[moving].parameters.values_RP)


def test_without_information_codes_are_noise_to_the_generator() -> None:
    """At lambda = 0 what Q says trains nothing but Q's own Adam, which has no slope."""
    model = model_of((0.0, 0.0))
    q = {name: tensor.clone() for name, tensor in model.critic.tensors.items() if name.startswith("q.")}
    model.update(draw_of(model), alive(), is_reported=True)
    assert all(torch.equal(tensor, model.critic.tensors[name]) for name, tensor in q.items())


NUM_CONVOLUTIONS = {4: 0, 32: 3, 64: 4, 128: 5}
"""By the side of the images; none is the multilayer perceptron."""


def plain_generator(
    tensors: Mapping[str, torch.Tensor], z: torch.Tensor, r: int, image: tuple[int, int, int]
) -> torch.Tensor:
    """The generator of one run in ordinary functions."""

    def normalized(h: torch.Tensor, layer: str) -> torch.Tensor:
        scale, bias = tensors[f"{layer}.scale"][r], tensors[f"{layer}.bias"][r]
        return F.batch_norm(h, None, None, scale, bias, training=True, eps=gan.NORM_EPSILON)

    h = z
    for layer in ("generator.hidden1", "generator.hidden2"):
        h = F.relu(normalized(h @ tensors[f"{layer}.weight"][r], layer))
    count = NUM_CONVOLUTIONS[image[1]]
    if not count:
        logits = h @ tensors["generator.out.weight"][r] + tensors["generator.out.bias"][r]
        return torch.sigmoid(logits).view(-1, *image)
    h = h.view(-1, 64, 4, 4)
    for layer in (f"generator.conv{number}" for number in range(count, 1, -1)):
        h = F.conv_transpose2d(h, tensors[f"{layer}.weight"][r], stride=2, padding=1)
        h = F.leaky_relu(normalized(h, layer), 0.2)
    last = tensors["generator.conv1.weight"][r], tensors["generator.conv1.bias"][r]
    return torch.sigmoid(F.conv_transpose2d(h, *last, stride=2, padding=1))


def plain_features(tensors: Mapping[str, torch.Tensor], x: torch.Tensor, r: int) -> torch.Tensor:
    count = NUM_CONVOLUTIONS[x.shape[-1]]
    for layer in (f"trunk.conv{number + 1}" for number in range(count)):
        convolved = F.conv2d(x, tensors[f"{layer}.weight"][r], tensors[f"{layer}.bias"][r], 2, 1)
        x = F.leaky_relu(convolved, 0.2)
    h = x.flatten(1)
    for layer in ["trunk.hidden"] if count else ["trunk.hidden1", "trunk.hidden2"]:
        h = F.leaky_relu(h @ tensors[f"{layer}.weight"][r] + tensors[f"{layer}.bias"][r], 0.2)
    return h


def plain_step(
    tensors: Mapping[str, torch.Tensor],
    drawn: Mapping[str, torch.Tensor],
    r: int,
    config: Config,
    information: float,
    image: tuple[int, int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses of the critic's first update and of a generator's update, with plain modules and torch's own losses."""

    def inputs(update: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        codes = drawn[f"codes {update}"][r] * 2 - 1
        category = drawn[f"category {update}"][r]
        hot = F.one_hot(category, config.categories).to(codes.dtype)
        continuous = codes[:, : config.continuous]
        return continuous, category, torch.cat([continuous, hot, codes[:, config.continuous :]], 1)

    def miss(features: torch.Tensor, continuous: torch.Tensor, category: torch.Tensor) -> torch.Tensor:
        h = F.leaky_relu(features @ tensors["q.hidden.weight"][r] + tensors["q.hidden.bias"][r], 0.2)
        said = h @ tensors["q.out.weight"][r] + tensors["q.out.bias"][r]
        squared = 0.5 * (continuous - said[:, : config.continuous]).pow(2).sum(1).mean()
        return squared + F.cross_entropy(said[:, config.continuous :], category)

    def score(x: torch.Tensor) -> torch.Tensor:
        h = plain_features(tensors, x, r)
        return (h @ tensors["critic.out.weight"][r] + tensors["critic.out.bias"][r])[:, 0]

    continuous, category, z = inputs("critic 0")
    fake, real = plain_generator(tensors, z, r, image).detach(), drawn["batch critic 0"][r]
    place = drawn["place critic 0"][r].view(-1, 1, 1, 1)
    between = (real + place * (fake - real)).requires_grad_()
    (slope,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).pow(2).mean()
    critic = score(fake).mean() - score(real).mean() + config.critic.penalty * penalty
    critic = critic + information * miss(plain_features(tensors, fake, r), continuous, category)

    continuous, category, z = inputs("generator")
    fake = plain_generator(tensors, z, r, image)
    generator = -score(fake).mean() + information * miss(
        plain_features(tensors, fake, r), continuous, category
    )
    return critic, generator


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("network", "image"),
    [
        ("mlp", IMAGE),
        ("conv", (2, 32, 32)),
        ("conv", (1, 64, 64)),
        ("conv", (3, 128, 128)),
    ],
)
def test_the_gradients_are_those_of_the_step_written_plainly(
    monkeypatch: pytest.MonkeyPatch, network: str, image: tuple[int, int, int]
) -> None:
    fast = {"batch_size": 2, "critic": Critic(1, 10.0, FAST)} if network == "conv" else {}
    model = model_of((0.3, 0.9), image, network=network, **fast)
    drawn = draw_of(model)
    written: dict[str, torch.Tensor] = {}
    for name, adam in model.optimizers.items():

        def keep(
            loss: torch.Tensor, name: str = name, parameters: stacked.Parameters = adam.parameters
        ) -> None:
            stacked.Parameters.backward(parameters, loss)
            written.setdefault(name, parameters.gradients_RP.clone())

        monkeypatch.setattr(adam.parameters, "backward", keep)
        monkeypatch.setattr(adam, "step", lambda alive_R: alive_R)
    model.update(drawn, alive(), is_reported=True)
    tensors = {
        name: tensor.detach().requires_grad_()
        for name, tensor in (model.critic.tensors | model.generator.tensors).items()
    }
    for r in range(2):
        losses = plain_step(tensors, drawn, r, model.config, float(model.information_R[r]), image)
        for part, loss in zip(("critic", "generator"), losses, strict=True):
            names = list(model.optimizers[part].parameters.tensors)
            slopes = torch.autograd.grad(loss, [tensors[name] for name in names], retain_graph=True)
            model.optimizers[part].parameters.gradients_RP.copy_(written[part])
            for name, slope in zip(names, slopes, strict=True):
                found = model.optimizers[part].parameters.gradients[name][r]
                torch.testing.assert_close(found, slope[r], rtol=1e-8, atol=1e-10)


def test_running_moments_are_those_of_torch_but_for_the_unbiased_variance() -> None:
    model = model_of()
    z = torch.rand(2, 6, 9)
    model.generate(z, by_batch=True, kept_by_R=alive())
    h_R = z @ model.generator.tensors["generator.hidden1.weight"]
    mean, variance = model.moments.of("generator.hidden1")
    torch.testing.assert_close(mean, 0.1 * h_R.mean(1))
    torch.testing.assert_close(variance, 0.9 + 0.1 * h_R.var(1, correction=0))
    before = model.moments.values_RP.clone()
    model.generate(z, by_batch=True)
    model.generate(z, by_batch=True, kept_by_R=~alive())
    assert torch.equal(model.moments.values_RP, before)


def test_a_code_is_read_back_as_q_sees_it_and_rebuilt_without_noise() -> None:
    model = model_of()
    x = torch.rand(2, 5, *IMAGE)
    codes, logvar = model.encode(x)
    assert logvar is None
    assert model.discrete_D == (False, False, True)
    assert set(codes[..., 2].flatten().tolist()) <= {0.0, 1.0, 2.0}
    hot = F.one_hot(codes[..., 2].long(), 3).float()
    inputs = torch.cat([codes[..., :2], hot, torch.zeros(2, 5, 4)], 2)
    assert torch.equal(model.decode(codes), model.generate(inputs, by_batch=False))
    one_by_one = torch.cat([model.decode(codes[:, b : b + 1]) for b in range(5)], 1)
    torch.testing.assert_close(model.decode(codes), one_by_one)


@pytest.mark.parametrize(("channels", "side", "further"), [(1, 64, 1), (3, 64, 1), (3, 32, 0), (2, 256, 3)])
def test_the_papers_networks_take_square_images(channels: int, side: int, further: int) -> None:
    """A doubled side has a further layer of 64 channels."""
    critic = gan.critic_shapes("conv", 128, (channels, side, side), 7)
    weights = 16 * (32 * channels + 32 * 32 + 32 * 64 + further * 64 * 64)
    convolutions = weights + 32 + 32 + 64 + further * 64
    heads = 1024 * 128 + 128 + 128 + 1 + 128 * 128 + 128 + 128 * 7 + 7
    assert sum(math.prod(shape) for shape in critic.values()) == convolutions + heads
    model = model_of(image=(channels, side, side), network="conv")
    x = torch.rand(2, 3, channels, side, side)
    codes, _ = model.encode(x)
    assert model.decode(codes).shape == x.shape


def test_codes_become_informative_on_the_small_set(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    """In seconds: Q reads the codes back from generated images better than it could by guessing."""
    fields = {"information": 1.0, "categories": 0, "continuous": 3}
    fields |= {f"{network}.adam.learning_rate": 3e-3 for network in ("critic", "generator")}
    pack = engine.Pack([small_run("info_wgan_gp", seed, fields) for seed in range(2)], sprites)
    pack.advance(150)
    guessing = 3 * 0.5 / 3  # half the variance of a uniform code on (-1, 1), three times
    assert all(run["information"] < 0.25 * guessing for run in pack.statistics())
    assert all(run["wasserstein"] < 1.0 for run in pack.statistics())
