"""What a small set of images is too small for, said before training."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from trainables import trial
from trainables.engine import ResolvedRun
from trainables.errors import InputError

Resolve = Callable[..., ResolvedRun]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_run: Resolve) -> Callable[..., ResolvedRun]:
    """A function that resolves a run on so many images, some of which may be equal."""
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))

    def resolve(num_images: int, num_codes: int, num_distinct: int = 0, **arrays: np.ndarray) -> ResolvedRun:
        levels = np.random.default_rng(0).integers(0, 256, (num_distinct or num_images, 8, 8), dtype=np.uint8)
        np.savez(
            tmp_path / "mine.npz", allow_pickle=False, images=np.resize(levels, (num_images, 8, 8)), **arrays
        )
        fields = {"vae.network": "mlp", "vae.width": 16, "vae.latent_dim": num_codes}
        return small_run("beta_vae", 0, fields, str(tmp_path / "mine.npz"))

    return resolve


@pytest.mark.parametrize(
    ("num_images", "num_codes", "num_distinct"),
    [(8, 10, 0), (10, 10, 0), (60, 6, 6)],
    ids=["fewer", "equal", "copies"],
)
def test_a_metric_that_will_be_infinite_is_told_before_training(
    run: Callable[..., ResolvedRun], num_images: int, num_codes: int, num_distinct: int
) -> None:
    """Codes are functions of images: on D of them their covariance has no full rank, however long they are trained."""
    (note,) = trial.notes(run(num_images, num_codes, num_distinct), ["recon_mse", "gaussian_tc"])
    assert note.startswith(
        f"gaussian_tc is inf on {num_images} images with {num_codes} codes even before training:"
    )
    assert trial.notes(run(num_images, num_codes, num_distinct), ["recon_mse"]) == (
        []
        if num_distinct
        else [
            f"Scores on {num_images} images with 10 codes are largely chance. Use at least 100 images, or fewer codes."
        ]
    )


def test_enough_images_need_no_note_and_few_are_told(run: Callable[..., ResolvedRun]) -> None:
    assert trial.notes(run(40, 4), ["recon_mse", "gaussian_tc"]) == []
    (note,) = trial.notes(run(39, 4), ["recon_mse", "gaussian_tc"])
    assert (
        note == "Scores on 39 images with 4 codes are largely chance. Use at least 40 images, or fewer codes."
    )


def test_large_sets_are_not_tried(run: Callable[..., ResolvedRun], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "MAX_IMAGES", 7)
    assert trial.notes(run(8, 10), ["gaussian_tc"]) == []


def test_a_metric_that_cannot_be_computed_is_refused_before_training(run: Callable[..., ResolvedRun]) -> None:
    few = run(4, 2, factors=np.array([0, 0, 0, 1]))
    with pytest.raises(
        InputError, match=r"^factor_vae_score needs .* two images each; .*\nThe set has 4 images: add more"
    ):
        trial.notes(few, ["recon_mse", "factor_vae_score"])
