import hashlib
import random
from collections.abc import Callable, Mapping
from typing import cast

import numpy as np
import pytest
import torch

from trainables import arithmetic, config, engine, ladder, plugins
from trainables.config import RunSpec
from trainables.engine import Pack, ResolvedRun
from trainables.errors import InputError, UnknownNameError
from trainables.images import Images
from trainables.models import beta_vae

pytestmark = pytest.mark.usefixtures("arithmetic")

WEIGHT = {"beta_vae": "beta", "factor_vae": "gamma", "info_wgan_gp": "information"}
OVERFLOW = 3e38
"""A weight at which the first step's gradients overflow."""

NUM_STEPS = 30
"""More steps than a chunk of random numbers has, in every pack of these tests."""


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random numbers for a few steps at once, so that few steps pass from chunk to chunk."""
    monkeypatch.setattr(engine, "CHUNK_WORDS_CPU", 25_000)


def digest(state: Mapping[str, np.ndarray]) -> str:
    return hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest()


def digests(pack: Pack) -> dict[str, str]:
    return {run.key: digest(state) for run, state in zip(pack.runs, pack.states(), strict=True)}


def trained(runs: list[ResolvedRun], images: Images, num_steps: int) -> dict[str, str]:
    pack = Pack(runs, images)
    pack.advance(num_steps)
    return digests(pack)


def odd_runs(
    small_run: Callable[..., ResolvedRun], model: str, generator: random.Random, num_runs: int
) -> list[ResolvedRun]:
    """Runs that share sizes which no vector register likes, and differ in seed and weight."""
    sizes: dict[str, float] = {"batch_size": generator.choice([17, 33, 50, 63])}
    if model == "info_wgan_gp":
        sizes |= {
            "continuous": generator.choice([3, 4, 5]),
            "categories": generator.choice([0, 3, 5]),
            "width": generator.choice([37, 50]),
        }
    else:
        sizes |= {
            "vae.latent_dim": generator.choice([3, 5, 7]),
            "vae.width": generator.choice([37, 50]),
            "adam.learning_rate": generator.choice([1e-3, 3e-3]),
        }
    if model == "factor_vae":
        sizes |= {"discriminator.width": generator.choice([37, 50])}
    return [
        small_run(model, generator.randrange(2**32), sizes | {WEIGHT[model]: generator.choice([0, 1, 4, 40])})
        for _ in range(num_runs)
    ]


# All laws at once, of every model that is found.


@pytest.mark.parametrize("model", plugins.names("trainables.models"))
def test_every_model_keeps_the_laws_of_a_pack(
    small_run: Callable[..., ResolvedRun], sprites: Images, model: str
) -> None:
    default = plugins.load("trainables.models", model, "model").Config()
    weights = config.per_run_fields(default)
    assert weights, "a pack is of runs that differ"
    fields = [dict.fromkeys(weights, value) for value in (0.0, 0.5, 2.0)]
    runs = [small_run(model, seed, each) for each in fields for seed in (3, 4)]
    whole = Pack(runs, sprites)
    whole.advance(5)
    states = {run.key: state for run, state in zip(runs, whole.states(), strict=True)}
    whole.advance(6)
    undisturbed = digests(whole)
    assert len(set(undisturbed.values())) == len(runs)
    for part in (runs[::-1][:1], [runs[4], runs[0]], runs[1:4]):
        assert trained(part, sprites, 11) == {run.key: undisturbed[run.key] for run in part}
        pack = Pack(part, sprites)
        pack.restore(5, [states[run.key] for run in part])
        pack.advance(6)
        assert digests(pack) == {run.key: undisturbed[run.key] for run in part}


# A run does not know its neighbors.


@pytest.mark.parametrize(
    ("model", "num_runs"),
    [
        ("factor_vae", (1, 8)),
        ("beta_vae", (2, 7)),
        ("beta_vae", (3, 6)),
        ("factor_vae", (1, 4)),
        ("info_wgan_gp", (1, 5, 2)),
    ],
)
def test_a_run_does_not_know_its_neighbors(
    small_run: Callable[..., ResolvedRun], sprites: Images, model: str, num_runs: tuple[int, ...]
) -> None:
    generator = random.Random(f"{model} {num_runs}")
    runs = odd_runs(small_run, model, generator, sum(num_runs))
    together = trained(runs, sprites, NUM_STEPS)
    assert len(set(together.values())) == len(runs)
    generator.shuffle(runs)
    for count in num_runs:
        pack, runs = runs[:count], runs[count:]
        apart = trained(pack, sprites, NUM_STEPS)
        assert apart == {key: together[key] for key in apart}


@pytest.mark.parametrize("num_threads", [2, 3])
def test_a_run_does_not_know_its_neighbors_at_any_number_of_threads(
    set_threads: Callable[[int], None],
    small_run: Callable[..., ResolvedRun],
    sprites: Images,
    num_threads: int,
) -> None:
    set_threads(num_threads)
    runs = [small_run("factor_vae", seed, {"batch_size": 64}) for seed in range(8)]
    together = trained(runs, sprites, 5)
    for pack in (runs[3:4], runs[:2], runs[7:2:-1]):
        apart = trained(pack, sprites, 5)
        assert apart == {key: together[key] for key in apart}


@pytest.mark.parametrize(
    ("model", "channels", "batch_size", "side"),
    [
        ("factor_vae", 1, 3, 64),
        ("beta_vae", 3, 2, 64),
        ("info_wgan_gp", 1, 3, 64),
        ("factor_vae", 3, 5, 32),
        ("info_wgan_gp", 3, 2, 32),
        ("factor_vae", 1, 2, 128),
        ("info_wgan_gp", 3, 2, 128),
    ],
)
def test_a_convolutional_run_does_not_know_its_neighbors(
    small_run: Callable[..., ResolvedRun],
    noise_images: Callable[..., Images],
    model: str,
    channels: int,
    batch_size: int,
    side: int,
) -> None:
    images = noise_images(channels, is_binary=channels == 1, side=side)
    sizes = {"vae.network": "conv", "vae.latent_dim": 3, "vae.width": 5}
    sizes = {"network": "conv", "width": 5, "critic.steps": 1} if model == "info_wgan_gp" else sizes
    sizes["batch_size"] = batch_size
    runs = [small_run(model, seed, sizes, data="dsprites") for seed in range(4)]
    whole = Pack(runs, images)
    whole.advance(1)
    states = dict(zip((run.key for run in runs), whole.states(), strict=True))
    whole.advance(1)
    together = digests(whole)
    for pack in (runs[2:3], runs[2::-1]):
        apart = trained(pack, images, 2)
        assert apart == {key: together[key] for key in apart}
        resumed = Pack(pack, images)
        resumed.restore(1, [states[run.key] for run in pack])
        resumed.advance(1)
        assert digests(resumed) == apart


def test_a_lone_run_shows_nothing_of_its_ghost(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    pack = Pack([small_run("factor_vae")], sprites)
    pack.advance(2)
    assert len(pack.seeds) == len(pack.alive_R) == ladder.MIN_SIZE == 2
    assert [len(shown()) for shown in (pack.states, pack.statistics, pack.first_bad_steps, pack.weights)] == [
        1
    ] * 4
    assert torch.equal(*pack.model.optimizers["vae"].parameters.values_RP)


def test_a_pack_may_be_advanced_in_any_strides(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    runs = [small_run("factor_vae", seed) for seed in range(2)]
    pack = Pack(runs, sprites)
    # More steps than are drawn at once.
    strides = [1, 0, 2, 30, 5]
    assert pack._chunk < 15
    for stride in strides:
        pack.advance(stride)
    assert pack.step == sum(strides)
    assert digests(pack) == trained(runs, sprites, sum(strides))


# Randomness.


def test_a_run_draws_by_its_seed_alone_and_anew_at_each_step(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    together = Pack([small_run("factor_vae", seed) for seed in (5, 9, 5)], sprites)
    alone = Pack([small_run("factor_vae", 9)], sprites)
    steps = torch.arange(100, 103)
    seen = []
    for t in range(3):
        many, one = (
            pack.gathered({n: v[t] for n, v in pack.generate_inputs(steps).items()})
            for pack in (together, alone)
        )
        for name, values in many.items():
            assert torch.equal(values[1], one[name][0])
            assert torch.equal(values[0], values[2])
            assert not torch.equal(values[0], values[1])
        seen.append(many["noise a"])
    assert len(torch.stack(seen).flatten(1).unique(dim=0)) == 3


def test_batches_are_images_of_the_set_drawn_evenly(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    pack = Pack([small_run("beta_vae", seed, {"batch_size": 60}) for seed in range(2)], sprites)
    every = sprites.at(torch.arange(len(sprites))).flatten(1)
    number = {image.numpy().tobytes(): row for row, image in enumerate(every)}
    rows = [
        number[image.numpy().tobytes()]
        for images in sprites.at(pack.generate_inputs(torch.arange(100))["batch a"])
        for image in images.flatten(0, 1).flatten(1)
    ]
    # Of 12,000 draws 2,000 are of one of the six scales, with a standard deviation of 41.
    counts = np.bincount(np.array(rows) // 256, minlength=6)
    assert np.abs(counts - 2000).max() < 4.5 * 41
    assert len(set(rows)) > 1530


# A diverged neighbor harms nobody.


@pytest.mark.parametrize("model", ["beta_vae", "factor_vae"])
def test_a_run_that_overflows_is_frozen_and_its_neighbors_keep_their_bits(
    small_run: Callable[..., ResolvedRun], sprites: Images, model: str
) -> None:
    runs = [small_run(model, seed, {"batch_size": 33, WEIGHT[model]: 4}) for seed in range(4)]
    bad = small_run(model, 1, {"batch_size": 33, WEIGHT[model]: OVERFLOW})
    pack = Pack([runs[0], bad, *runs[2:]], sprites)
    initial = {name: value for name, value in pack.states()[1].items() if name.endswith("vae.values")}
    pack.advance(20)
    assert pack.first_bad_steps() == [None, 0, None, None]
    assert pack.alive_R.tolist() == [True, False, True, True]
    found, expected = digests(pack), trained(runs, sprites, 20)
    assert all(found[runs[r].key] == expected[runs[r].key] for r in (0, 2, 3))
    for name, value in initial.items():
        assert (pack.states()[1][name] == value).all()


@pytest.mark.parametrize(
    ("model", "network"),
    [
        ("beta_vae", "vae"),
        ("factor_vae", "vae"),
        ("factor_vae", "discriminator"),
        ("info_wgan_gp", "critic"),
        ("info_wgan_gp", "generator"),
    ],
)
def test_a_poisoned_run_stops_at_that_step_and_stays_where_it_was(
    small_run: Callable[..., ResolvedRun], sprites: Images, model: str, network: str
) -> None:
    runs = [small_run(model, seed, {"batch_size": 17}) for seed in range(3)]
    expected = trained(runs, sprites, 14)
    pack = Pack(runs, sprites)
    pack.advance(7)
    states = pack.states()
    tensors = pack.model.optimizers[network].parameters.tensors
    place = next(tensor for name, tensor in tensors.items() if name.endswith("bias")).storage_offset()
    states[1][f"{network}.values"][place] = np.inf
    pack = Pack(runs, sprites)
    pack.restore(7, states)
    pack.advance(1)
    assert pack.first_bad_steps() == [None, 7, None]
    frozen = pack.states()[1]
    pack.advance(6)
    assert pack.first_bad_steps() == [None, 7, None]
    for name, value in pack.states()[1].items():
        if name.endswith(".values"):
            assert value.tobytes() == frozen[name].tobytes()
            assert np.count_nonzero(~np.isfinite(value)) == (name == f"{network}.values")
    found = digests(pack)
    assert all(found[runs[r].key] == expected[runs[r].key] for r in (0, 2))


def test_a_weight_whose_squared_gradients_overflow_diverges(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    # Adam's second moments would be infinite and the encoder would never move, in a run that counts as done.
    pack = Pack([small_run("beta_vae", 0), small_run("beta_vae", 0, {"beta": 1e30})], sprites)
    pack.advance(3)
    assert pack.first_bad_steps() == [None, 0]


# States.


@pytest.mark.parametrize("model", ["factor_vae", "info_wgan_gp"])
def test_a_run_goes_on_exactly_among_other_neighbors_in_another_slot(
    small_run: Callable[..., ResolvedRun], sprites: Images, model: str
) -> None:
    generator = random.Random("restore")
    runs = odd_runs(small_run, model, generator, 7)
    undisturbed = trained(runs, sprites, 16)
    first, second = Pack(runs[:4], sprites), Pack(runs[4:], sprites)
    for pack in (first, second):
        pack.advance(6)
    saved = [*first.states(), *second.states()]
    states = {run.key: state for run, state in zip(runs, saved, strict=True)}
    first.advance(1)  # what was saved is a copy
    mixed = generator.sample(runs, k=7)
    for part in (mixed[:1], mixed[1:3], mixed[3:]):
        pack = Pack(part, sprites)
        pack.restore(6, [states[run.key] for run in part])
        assert digests(pack) == {run.key: digest(states[run.key]) for run in part}
        pack.advance(10)
        found = digests(pack)
        assert found == {key: undisturbed[key] for key in found}


def test_a_diverged_run_stays_diverged_when_restored(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    runs = [small_run("beta_vae", 0), small_run("beta_vae", 0, {"beta": OVERFLOW})]
    pack = Pack(runs, sprites)
    pack.advance(7)
    other = Pack(runs[::-1], sprites)
    other.restore(7, pack.states()[::-1])
    other.advance(5)
    pack.advance(5)
    assert other.first_bad_steps() == [0, None]
    assert digests(other) == digests(pack)


def test_training_lowers_the_loss(small_run: Callable[..., ResolvedRun], sprites: Images) -> None:
    for model in ("beta_vae", "factor_vae"):  # a game has no loss that falls
        fields = {WEIGHT[model]: 1, "adam.learning_rate": 3e-3}
        pack = Pack([small_run(model, seed, fields) for seed in range(2)], sprites)
        pack.advance(1)
        before = pack.statistics()
        pack.advance(59)
        for first, last in zip(before, pack.statistics(), strict=True):
            assert last["recon"] < 0.25 * first["recon"]


# What may form a pack.


def test_runs_of_different_static_keys_form_no_pack(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    apart = [small_run("beta_vae"), small_run("beta_vae", fields={"vae.width": 65})]
    with pytest.raises(ValueError, match="share one static key"):
        Pack(apart, sprites)
    together = [small_run("beta_vae"), small_run("beta_vae", 3, {"beta": 7})]
    assert together[0].static_key == together[1].static_key
    assert together[0].key != together[1].key
    model = cast(beta_vae.Model, Pack(together, sprites).model)
    assert model.beta_R.tolist() == [4, 7]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (RunSpec("beta_vea", "sprites", {}, 0), "Unknown model 'beta_vea'. Did you mean 'beta_vae'"),
        (RunSpec("beta_vae", "sprits", {}, 0), "Unknown data set 'sprits'. Did you mean 'sprites'"),
        (RunSpec("beta_vae", "sprites", {"bata": 1}, 0), "Unknown field 'bata'. Did you mean 'beta'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(spec: RunSpec, text: str) -> None:
    with pytest.raises(UnknownNameError, match=text):
        engine.resolve(spec)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_outside_32_bits_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match=f"Seed {seed} is outside"):
        engine.resolve(RunSpec("beta_vae", "sprites", {}, seed))


def test_arithmetic_flushes_denormals_and_sets_the_precision() -> None:
    arithmetic.set_arithmetic("tf32", 1)
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32
    arithmetic.set_arithmetic("fp32", 1)
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert (torch.tensor([1e-40]) * 0.5).item() == 0
