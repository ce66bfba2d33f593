"""The official file, stood in for by 2,048 rendered images of which some pixels are flipped."""

import io
import pickle
import zipfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from trainables.data import dsprites
from trainables.data.official import dsprites as official
from trainables.data.readers import cache as image_cache
from trainables.errors import InputError

CPU = torch.device("cpu")
CLASSES = (1, 1, 1, 2, 32, 32)
NUM_IMAGES = 2048


def imgs() -> np.ndarray:
    """As the official ones differ from the rendered ones: a few pixels of some images."""
    packed_NB = np.concatenate(list(islice(dsprites._blocks(0), 2)))
    images_NHW = np.unpackbits(packed_NB, axis=1).reshape(NUM_IMAGES, 64, 64)
    images_NHW[::5, 0, :2] = 1
    return images_NHW


def classes() -> np.ndarray:
    return np.stack(np.unravel_index(np.arange(NUM_IMAGES), CLASSES), axis=1)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("SWEEPER_DATA", str(folder))
    for name, value in {
        "NUM_IMAGES": NUM_IMAGES,
        "NUM_ONES": int(imgs().sum()),
        "CLASSES": CLASSES,
    }.items():
        monkeypatch.setattr(official, name, value)
    return folder


class Bomb:
    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (Path("executed"),)


def as_npz(folder: Path, **arrays: np.ndarray) -> Path:
    """With pickled metadata, as in the official file; these would make a file if anybody unpickled them."""
    path = folder / f"{official.STEM}.npz"
    named = {"imgs": imgs(), "latents_classes": classes()} | arrays
    np.savez_compressed(path, allow_pickle=False, **named)
    buffer = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(buffer, header)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("metadata.npy", buffer.getvalue() + pickle.dumps(Bomb()))
    return path


def as_hdf5(folder: Path) -> Path:
    path = folder / f"{official.STEM}.hdf5"
    with h5py.File(path, "w") as file:
        file.create_dataset("imgs", data=imgs(), chunks=(1500, 2, 4), compression="gzip")
        file.create_dataset("latents/classes", data=classes())
    return path


def converted() -> np.ndarray:
    wanted = official.conversion(dsprites._blocks)
    assert wanted is not None
    return np.unpackbits(image_cache.load(wanted), axis=1).reshape(NUM_IMAGES, 64, 64)


@pytest.mark.parametrize("stored", [as_npz, as_hdf5])
def test_the_official_file_is_converted_bit_for_bit_and_not_needed_again(
    cache: Path, stored: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cache)
    path = stored(cache)
    np.testing.assert_array_equal(converted(), imgs())
    path.unlink()
    np.testing.assert_array_equal(converted(), imgs())
    assert not (cache / "executed").exists()


@pytest.mark.parametrize("stored", [as_npz, as_hdf5])
def test_a_conversion_goes_on_inside_the_file(cache: Path, stored: Callable[[Path], Path]) -> None:
    stored(cache)
    wanted = official.conversion(dsprites._blocks)
    assert wanted is not None
    np.testing.assert_array_equal(
        np.concatenate(list(wanted.blocks(1024))), np.concatenate(list(wanted.blocks(0)))[1024:]
    )


def test_the_rendered_set_is_there_where_no_file_is(cache: Path) -> None:
    assert official.conversion(dsprites._blocks) is None
    assert dsprites.find().recipe == dsprites.RECIPE == "dsprites (rendered v1)"


def test_the_official_set_has_its_own_recipe(cache: Path) -> None:
    as_npz(cache)
    source = dsprites.find()
    assert source.recipe == "dsprites (official)"
    found_N1HW = source.pixels(CPU).at(torch.arange(NUM_IMAGES)).numpy()
    np.testing.assert_array_equal(found_N1HW, imgs().reshape(NUM_IMAGES, -1))


def swapped() -> np.ndarray:
    images = imgs()
    images[[3, 1999]] = images[[1999, 3]]
    return images


def with_more_white() -> np.ndarray:
    images = imgs()
    images[7, 63, :3] = 1
    return images


def web_page(folder: Path) -> Path:
    path = folder / f"{official.STEM}.npz"
    path.write_text("<!DOCTYPE html><html>Sign in to download</html>")
    return path


def truncated(folder: Path) -> Path:
    path = as_npz(folder)
    path.write_bytes(path.read_bytes()[:-5000])
    return path


WRONG: dict[str, Callable[[Path], Path]] = {
    "A web page was saved": web_page,
    "is truncated or damaged": truncated,
    r"uint8 \(2047, 64, 64\); expected uint8 \(2048, 64, 64\)": lambda f: as_npz(f, imgs=imgs()[1:]),
    "imgs are int64": lambda f: as_npz(f, imgs=imgs().astype(np.int64)),
    "levels up to 255; expected 0 and 1": lambda f: as_npz(f, imgs=imgs() * 255),
    "image 3 differs in .* pixels": lambda f: as_npz(f, imgs=swapped()),
    "white pixels; expected": lambda f: as_npz(f, imgs=with_more_white()),
    "latents_classes from row 0 on do not follow the factor grid": lambda f: as_npz(
        f, latents_classes=classes()[:, ::-1]
    ),
    r"latents_classes have shape \(2048, 5\)": lambda f: as_npz(f, latents_classes=classes()[:, 1:]),
}


@pytest.mark.parametrize(("said", "make"), WRONG.items())
def test_what_is_not_the_official_set_is_refused_by_name_before_anything_is_kept(
    cache: Path, said: str, make: Callable[[Path], Path]
) -> None:
    path = make(cache)
    with pytest.raises(InputError, match=said) as refusal:
        dsprites.find()
    assert path.stem in str(refusal.value)
    assert len(str(refusal.value).splitlines()) <= 3
    assert not list(cache.glob("*.h5"))
    assert not list(cache.glob("*.partial"))
