"""Memory by shapes: against closed forms, and what is refused."""

import math
from collections.abc import Callable

import pytest

from trainables import memory
from trainables.engine import ResolvedRun
from trainables.errors import InputError

ROOM = 8 * memory.GIB
Small = Callable[..., ResolvedRun]


def test_what_the_papers_train_is_never_built_to_be_measured(
    small_run: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_bytes", lambda *_: pytest.fail("built"))
    for model in ("beta_vae", "factor_vae", "info_wgan_gp"):
        memory.check(small_run(model), 8, ROOM)


def test_a_wide_layer_counts_by_its_parameters(small_run: Small) -> None:
    """Values, gradients and two moments of the square layers of encoder and decoder are nearly all that there is."""
    width = 2**15
    run = small_run("beta_vae", fields={"vae.width": width})
    squares = 2 * width**2 * 4 * 4
    assert squares < memory._bytes(run, run.config) < 1.6 * squares


def test_activations_grow_with_the_batch_alone(small_run: Small) -> None:
    one, two, four = (
        memory._bytes(run, run.config)
        for run in (small_run("factor_vae", fields={"batch_size": 10_000 * k}) for k in (1, 2, 4))
    )
    assert four - two == pytest.approx(2 * (two - one), rel=1e-3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 10**6),
        ("batch_size", 10**15),
        ("vae.width", 10**6),
        ("vae.latent_dim", 10**6),
        ("discriminator.width", 10**18),
    ],
)
def test_a_field_that_memory_cannot_hold_is_named_with_a_value_that_fits(
    field: str, value: int, small_run: Small
) -> None:
    with pytest.raises(InputError) as raised:
        memory.check(small_run("factor_vae", fields={field: value}), 4, ROOM)
    first, second = str(raised.value).splitlines()
    assert first.startswith(f"{field}={value}: a pack of 4 such runs would need ")
    assert "8.0 GiB are free" in first
    name, _, fits = second.removeprefix("Use smaller ones, for example ").rstrip(".").partition("=")
    assert name == field
    memory.check(small_run("factor_vae", fields={field: int(fits)}), 4, ROOM)


def test_a_pack_of_too_many_runs_is_told_to_have_fewer(small_run: Small) -> None:
    with pytest.raises(InputError, match=r"(?s)a pack of 1000000 such runs .*Use fewer seeds"):
        memory.check(small_run("beta_vae"), 10**6, ROOM)


def test_the_memory_of_this_machine_is_known() -> None:
    assert 0 < memory.available_bytes() < math.inf
