"""Fields that follow from the images: what they become, and that keys and numbers are those of the value itself."""

import hashlib
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables import attempt, config, engine, fitting
from trainables.config import RunSpec, Value
from trainables.engine import Pack
from trainables.errors import UnknownNameError
from trainables.images import Images
from trainables.models.networks.image_sizes import Network

pytestmark = pytest.mark.usefixtures("arithmetic")

Shade = typing.Literal["auto", "grey", "color"]
SMALL: dict[str, Value] = {"vae.width": 5, "vae.latent_dim": 3, "batch_size": 2}


def shade_of(image: tuple[int, int, int]) -> Shade:
    return "grey" if image[0] == 1 else "color"


@dataclass(frozen=True)
class Inner:
    shade: Shade = fitting.by_image(shade_of, usual="color")
    name: str = fitting.AUTO
    """Not declared to follow from the images: `auto` is a text like any other."""


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    shade: Shade = fitting.by_image(shade_of, usual="grey")


@pytest.mark.parametrize(("channels", "shade"), [(1, "grey"), (3, "color")])
def test_declared_fields_that_are_auto_are_filled_in_at_any_depth(channels: int, shade: str) -> None:
    found = config.flatten(fitting.fitted(Outer(), (channels, 4, 4)))
    assert found == {"inner.shade": shade, "inner.name": "auto", "shade": shade}
    assert Outer() == Outer(Inner("auto", "auto"), "auto")


def test_what_is_set_stays() -> None:
    chosen = config.replace(Outer(), {"inner.shade": "color"})
    assert fitting.fitted(chosen, (1, 4, 4)) == Outer(Inner("color"), "grey")
    assert fitting.fitted(fitting.fitted(chosen, (1, 4, 4)), (3, 4, 4)) == Outer(Inner("color"), "grey")
    assert fitting.usual(Outer()) == Outer(Inner("color"), "grey")
    with pytest.raises(UnknownNameError, match=r"Valid: auto, color, grey\."):
        config.replace(Outer(), {"inner.shade": "gray"})


def saved_images(folder: Path, *shape: int) -> str:
    path = folder / "images.npz"
    images = np.random.default_rng(0).integers(0, 256, (12, *shape), dtype=np.uint8)
    np.savez(path, images=images)
    return str(path)


@pytest.mark.parametrize(
    ("shape", "network"),
    [
        ((32, 32), "conv"),
        ((32, 32, 3), "conv"),
        ((128, 128, 1), "conv"),
        ((16, 16), "mlp"),
        ((32, 64), "mlp"),
        ((48, 48, 3), "mlp"),
    ],
)
def test_a_run_is_that_of_the_network_that_fits(tmp_path: Path, shape: tuple[int, ...], network: str) -> None:
    data = saved_images(tmp_path, *shape)
    ways: list[dict[str, Value]] = [{}, {"vae.network": "auto"}, {"vae.network": network}]
    runs = [engine.resolve(RunSpec("beta_vae", data, SMALL | way, 0)) for way in ways]
    assert len({run.key for run in runs}) == len({run.static_key for run in runs}) == 1
    stored = attempt.stored_spec(runs[0])
    assert stored["fields"]["vae.network"] == network
    assert engine.resolve(config.spec_of(stored)).key == runs[0].key


@pytest.mark.parametrize(("model", "field"), [("factor_vae", "vae.network"), ("info_wgan_gp", "network")])
@pytest.mark.parametrize(("data", "network"), [("dsprites", "conv"), ("sprites", "mlp")])
def test_keys_are_those_of_the_time_when_convolutions_were_the_default(
    model: str, field: str, data: str, network: str
) -> None:
    run = engine.resolve(RunSpec(model, data, {}, 3))
    identity = {
        "model": model,
        "version": 1,
        "fields": {} if network == "conv" else {field: network},
        "seed": 3,
        "data": run.source.recipe,
        "precision": "fp32",
    }
    assert run.key == hashlib.sha256(config.canonical_json(identity).encode()).hexdigest()


@pytest.mark.parametrize(
    ("side", "network"), [(32, "conv"), (64, "conv"), pytest.param(16, "mlp"), pytest.param(48, "mlp")]
)
def test_a_run_has_the_bits_of_the_network_that_fits(
    noise_images: Callable[..., Images], tmp_path: Path, side: int, network: Network
) -> None:
    data, images = saved_images(tmp_path, side, side), noise_images(1, is_binary=False, side=side)
    values = []
    for fields in ({}, {"vae.network": network}):
        pack = Pack([engine.resolve(RunSpec("beta_vae", data, SMALL | fields, 0))], images)
        pack.advance(2)
        values.append(pack.model.optimizers["vae"].parameters.values_RP)
    assert torch.equal(*values)
