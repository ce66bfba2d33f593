"""The official file, stood in for by 960 images of the lookalike in two colorings."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from trainables.data import shapes3d
from trainables.data.official import shapes3d as official
from trainables.data.readers import preparation
from trainables.data.rendering import room
from trainables.errors import InputError

CPU = torch.device("cpu")
SIZES = (1, 1, 2, 8, 4, 15)
NUM_IMAGES = 960


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """uint8 (960, 64, 64, 3)."""
    levels = shapes3d.lookalike().load(CPU).at(torch.arange(NUM_IMAGES)).mul(255).round()
    return levels.to(torch.uint8).numpy().transpose(0, 2, 3, 1)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    indices = np.unravel_index(np.arange(NUM_IMAGES), SIZES)
    return np.stack([v[i] for v, i in zip(official.VALUES, indices, strict=True)], axis=1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, images: np.ndarray) -> Path:
    # Scenes to compare with have jagged edges, in a tenth of the time.
    monkeypatch.setattr(room, "SAMPLES", 1)
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    means = tuple(images.mean(axis=(0, 1, 2)) / 255)
    for name, value in {"NUM_IMAGES": NUM_IMAGES, "SIZES": SIZES, "CHANNEL_MEANS": means}.items():
        monkeypatch.setattr(official, name, value)
    return tmp_path


def write(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    path = folder / "3dshapes.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, chunks=(100, 8, 8, 3), compression="gzip")
        file.create_dataset("labels", data=labels)
    return path


def test_the_official_file_is_converted_level_for_level_and_not_needed_again(
    cache: Path, images: np.ndarray, labels: np.ndarray
) -> None:
    path = write(cache, images, labels)
    for _ in range(2):
        source = shapes3d.find()
        assert source.recipe == "shapes3d (official)"
        found = source.pixels(CPU).at(torch.arange(NUM_IMAGES)).reshape(-1, 3, 64, 64).numpy()
        np.testing.assert_array_equal(found, images.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        path.unlink(missing_ok=True)


def test_a_conversion_goes_on_inside_the_file(cache: Path, images: np.ndarray, labels: np.ndarray) -> None:
    write(cache, images, labels)
    wanted = official.conversion()
    assert wanted is not None
    blocks = list(wanted.blocks(0))
    rest = np.concatenate(list(wanted.blocks(len(blocks[0]))))
    np.testing.assert_array_equal(rest, np.concatenate(blocks)[len(blocks[0]) :])


def test_without_the_file_there_is_a_lookalike(cache: Path) -> None:
    assert shapes3d.find().recipe == "shapes3d (lookalike v1)"


def swapped(images: np.ndarray) -> np.ndarray:
    images = images.copy()
    images[[5, 700]] = images[[700, 5]]
    return images


Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

WRONG: dict[str, Change] = {
    r"images are uint8 \(959, 64, 64, 3\); expected": lambda i, y: (i[1:], y[1:]),
    r"images are float32 \(960, 64, 64, 3\); expected": lambda i, y: (i.astype(np.float32), y),
    r"labels have shape \(960, 5\); expected \(960, 6\)": lambda i, y: (i, y[:, 1:]),
    "labels from row 0 on do not follow the factor grid": lambda i, y: (i, y[::-1]),
    r"the object of image 5 has hue 0\.1; expected 0\.0 at its place in the grid": lambda i, y: (
        swapped(i),
        y,
    ),
    r"the floor of image 0 has hue 0\.[34]": lambda i, y: (i[..., [1, 0, 2]], y),
    "channels have means": lambda i, y: (i // 2, y),
}


@pytest.mark.parametrize(("said", "change"), WRONG.items())
def test_what_is_not_the_official_set_is_refused_by_name(
    cache: Path, images: np.ndarray, labels: np.ndarray, said: str, change: Change
) -> None:
    write(cache, *change(images, labels))
    with pytest.raises(InputError, match=said) as refusal:
        shapes3d.find()
    assert "3dshapes.h5" in str(refusal.value)
    assert "move it away" in str(refusal.value)
    assert not list(cache.glob("*.partial"))
    assert not preparation.folder().joinpath("shapes3d_official.h5").exists()


def test_a_web_page_or_part_of_a_file_is_refused_by_name(
    cache: Path, images: np.ndarray, labels: np.ndarray
) -> None:
    path = write(cache, images, labels)
    path.write_bytes(path.read_bytes()[:-20_000])
    with pytest.raises(InputError, match=r"3dshapes\.h5"):
        shapes3d.find()
    path.write_text("<!doctype html>")
    with pytest.raises(InputError, match="A web page was saved"):
        shapes3d.find()
