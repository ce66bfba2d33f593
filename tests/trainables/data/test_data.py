"""The contract of every data set, over all that are found, and of images by path."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from trainables import plugins, sources
from trainables.errors import InputError, UnknownNameError
from trainables.images import Source

NAMES = plugins.names("trainables.data")
FROM_FILES = {"celeba", "chairs3d", "faces3d"}
"""Sets that exist nowhere but in files that a user has."""
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", sorted(set(NAMES) - FROM_FILES))
def test_a_data_set_is_what_it_says(name: str) -> None:
    source = sources.find(name)
    assert isinstance(source, Source)
    assert source.recipe.startswith(f"{name} (")
    assert len(source.factor_names) == len(source.factor_sizes) > 0
    assert math.prod(source.factor_sizes) == source.num_images
    images = source.load(CPU)
    rows = np.random.default_rng(0).integers(0, len(images), (4, 8))
    x = images.at(torch.from_numpy(rows))
    assert x.dtype == torch.float32
    assert x.shape == (4, 8, *source.shape)
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    assert torch.equal(x, images.at(torch.from_numpy(rows)))
    assert torch.equal(x[2], images.at(torch.from_numpy(rows[2])))
    factors_NK = images.factors(rows.ravel())
    assert (factors_NK >= 0).all()
    assert (factors_NK < source.factor_sizes).all()
    # Images of different factors differ, in most sets even those of neighbors.
    assert len(np.unique(x.flatten(2).flatten(0, 1).numpy(), axis=0)) == len(np.unique(rows))


@pytest.mark.parametrize("name", sorted(FROM_FILES))
def test_a_set_that_needs_files_says_which_and_where(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    with pytest.raises(InputError, match=name) as refusal:
        sources.find(name)
    assert str(tmp_path) in str(refusal.value)
    assert "https://" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 2


def test_an_unknown_name_is_answered_with_the_valid_ones_and_a_path() -> None:
    with pytest.raises(
        UnknownNameError, match=r"Did you mean 'dsprites'\?\nValid: .*sprites.*\n.*\./pictures"
    ):
        sources.find("dsprite")


@pytest.mark.parametrize("path", ["./nope", "/nope/images.npz", "nope.h5", "~/nope"])
def test_a_path_that_leads_nowhere_is_named(path: str) -> None:
    with pytest.raises(InputError, match=r"nope.*no such file or folder"):
        sources.find(path)


@pytest.mark.parametrize(
    ("data", "is_path"), [("dsprites", False), ("a.h5", True), ("./a", True), ("~", True)]
)
def test_what_is_a_path_and_what_a_name(data: str, is_path: bool) -> None:
    assert sources.is_path(data) == is_path
