from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainables.data.official import picture_set
from trainables.data.readers import preparation
from trainables.errors import InputError
from trainables.images import Source

CPU = torch.device("cpu")
PICTURES = np.random.default_rng(0).integers(0, 256, (5, 12, 10, 3), dtype=np.uint8)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path))
    (tmp_path / "faces" / "a").mkdir(parents=True)
    for number, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / "faces" / "a" / f"{number}.png")
    return tmp_path


def find(num_images: int = 5) -> Source:
    places = ("faces.zip", "faces")
    return picture_set.find("faces (test)", places, num_images, (3, 4, 4), (8, 8), "From the moon.")


def test_the_middle_of_each_picture_is_shrunk_by_the_mean_of_what_it_covers(cache: Path) -> None:
    found = find().load(CPU).at(torch.arange(5)).numpy() * 255
    middle = PICTURES[:, 2:10, 1:9].astype(float).reshape(5, 4, 2, 4, 2, 3).mean(axis=(2, 4))
    # Rounded after each axis.
    assert np.abs(found - middle.transpose(0, 3, 1, 2)).max() <= 1.01


def test_pictures_are_converted_once_and_not_needed_again(cache: Path) -> None:
    before = find().load(CPU).at(torch.arange(5))
    (cache / "faces" / "a" / "3.png").unlink()
    (cache / "faces").rename(cache / "gone")
    assert torch.equal(find().load(CPU).at(torch.arange(5)), before)


def test_a_conversion_goes_on_at_any_picture(cache: Path) -> None:
    whole = np.concatenate(list(picture_set._blocks(cache / "faces", 5, (3, 4, 4), (8, 8), 0)))
    rest = np.concatenate(list(picture_set._blocks(cache / "faces", 5, (3, 4, 4), (8, 8), 2)))
    np.testing.assert_array_equal(rest, whole[2:])


def test_another_number_of_pictures_is_another_set(cache: Path) -> None:
    with pytest.raises(InputError, match=r"faces has 5 pictures; expected 6\.\n.*--data .*faces"):
        find(6)
    assert not list(preparation.folder().glob("*.h5"))


def test_a_picture_that_is_none_is_named(cache: Path) -> None:
    (cache / "faces" / "a" / "2.png").write_text("<html>")
    with pytest.raises(InputError, match=r"a/2\.png"):
        find()
    assert not list(preparation.folder().glob("*.h5"))


def test_files_that_are_not_there_are_named_with_the_place_to_put_them(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPER_DATA", str(cache / "elsewhere"))
    with pytest.raises(InputError, match=r"faces\.zip or faces in .*elsewhere.*\nFrom the moon\."):
        find()
