"""Your own images with ground truth that is not an array beside them: grids, tables, folders."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trainables import sources
from trainables.data.readers import factors, levels
from trainables.errors import InputError
from trainables.images import Source
from trainables.reading import Reading, join

CPU = torch.device("cpu")
LEVELS = np.random.default_rng(0).integers(0, 256, (24, 5, 7, 4), dtype=np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path / "data"))
    return tmp_path


def saved(folder: Path, array: np.ndarray, name: str = "mine.npy") -> Path:
    np.save(folder / name, array)
    return folder / name


def refused(data: str) -> str:
    with pytest.raises(InputError) as refusal:
        sources.find(data)
    text = str(refusal.value)
    assert 2 <= len(text.splitlines()) <= 3
    return text


def factors_of(source: Source) -> np.ndarray:
    return source.load(CPU).factors(np.arange(source.num_images))


# Grids, and factors in a file of their own.


def test_images_in_the_order_of_a_grid_are_as_with_its_factors_beside_them(folder: Path) -> None:
    path = saved(folder, LEVELS[..., 0])
    grid_NK = np.array([(a, b, c) for a in range(2) for b in range(4) for c in range(3)])
    np.savez(folder / "mine.npz", images=LEVELS[..., 0], factors=grid_NK * 7 - 3)
    beside, alone = sources.find(str(folder / "mine.npz")), sources.find(f"{path}?factor-sizes=2,4,3")
    assert (alone.recipe, alone.factor_sizes) == (beside.recipe, (2, 4, 3))
    np.testing.assert_array_equal(factors_of(alone), grid_NK)
    assert sources.find(f"{folder / 'mine.npz'}?factor-sizes=2,4,3").notes[0].endswith("not read: 'factors'.")
    saved(folder, grid_NK, "factors.npy")
    other = sources.find(f"{path}?factors={folder / 'factors.npy'}")
    assert (other.recipe, other.notes) == (beside.recipe, ())


def test_a_grid_of_another_number_of_images_is_refused(folder: Path) -> None:
    path = saved(folder, LEVELS[..., 0])
    text = refused(f"{path}?factor-sizes=2,5,3")
    assert text.startswith(f"--factor-sizes 2,5,3: a grid of 30 images; {path} has 24.\nGive the number")
    assert "factor 0 has 24 values in 24 images" in refused(f"{path}?factor-sizes=24")
    assert "514 factors; expected at most 512" in refused(f"{path}?factor-sizes=2,12{',1' * 512}")


def test_pictures_may_be_a_grid_in_the_order_of_their_names(folder: Path) -> None:
    source = sources.find(f"{pictures(folder, [f'{k:02d}.png' for k in range(6)])}?factor-sizes=3,2")
    np.testing.assert_array_equal(factors_of(source), [(a, b) for a in range(3) for b in range(2)])


@pytest.mark.parametrize("num_factors", [40, factors.MAX_FACTORS])
def test_as_many_factors_as_attributes_of_faces_are_read(folder: Path, num_factors: int) -> None:
    signs_NK = np.where(np.random.default_rng(1).random((24, num_factors)) < 0.5, -1, 1)
    path = saved(folder, LEVELS[..., 0])
    source = sources.find(f"{path}?factors={saved(folder, signs_NK, 'signs.npy')}")
    np.testing.assert_array_equal(factors_of(source), signs_NK > 0)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("images=x", "mine.npy has one array without a name.\nLeave out --images."),
        ("factors=y", "mine.npy has one array without a name.\nGive the ground truth as --factors FILE.npy"),
        (
            "labels=folders",
            "--labels is for pictures; {0} has arrays.\nLeave it out; the ground truth of arrays",
        ),
        ("follow-links=yes", "--follow-links is for pictures; {0} has arrays."),
        ("factors={1}/few.npy", "few.npy: factors have shape (3,); expected (24, K)"),
        ("factors={1}/no.npy", "no.npy is missing; expected"),
    ],
)
def test_options_that_do_not_fit_an_array_are_refused(folder: Path, query: str, said: str) -> None:
    saved(folder, np.arange(3), "few.npy")
    path = saved(folder, LEVELS[..., 0])
    assert said.format(path, folder) in refused(f"{path}?{query.format(path, folder)}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("imags", "Name the array of images: --images imgs"),
        ("zzz", "Name the array of images: --images imgs"),
    ],
)
def test_an_array_that_is_named_and_not_there_is_refused_with_those_that_are(
    folder: Path, name: str, said: str
) -> None:
    np.savez(folder / "mine.npz", imgs=LEVELS, classes=np.arange(24) // 5, mask=np.zeros(24))
    text = refused(f"{folder / 'mine.npz'}?images={name}")
    assert f"has no array '{name}'; it has 'imgs', 'classes', 'mask'." in text
    assert said in text
    text = refused(f"{folder / 'mine.npz'}?images=imgs&factors=clases")
    assert "has no array 'clases'; it has" in text
    assert text.endswith("Name the ground truth: --factors classes")


# Opacity.


@pytest.mark.parametrize("axis", [1, 3])
def test_four_channels_are_color_and_opacity_on_white(folder: Path, axis: int) -> None:
    path = saved(folder, LEVELS if axis == 3 else np.ascontiguousarray(LEVELS.transpose(0, 3, 1, 2)))
    source = sources.find(str(path))
    assert source.notes == (
        f"{path}: images have 4 channels, read as red, green, blue and opacity, on white.",
    )
    color, alpha = LEVELS[..., :3] / 255, LEVELS[..., 3:] / 255
    expected = (color * alpha + 1 - alpha).transpose(0, 3, 1, 2)
    found = source.load(CPU).at(torch.arange(24)).numpy()
    np.testing.assert_allclose(found, expected, atol=0.5 / 255 + 1e-6)


def test_opacity_is_exact_at_its_ends() -> None:
    pixels = np.array([[7, 250, 0, 255], [7, 250, 0, 0], [7, 250, 0, 128]], dtype=np.uint8).reshape(
        3, 4, 1, 1
    )
    expected = [[7, 250, 0], [255, 255, 255], [131, 252, 127]]
    np.testing.assert_array_equal(levels.on_white(pixels).reshape(3, 3), expected)


def test_opacity_of_floats_and_booleans_is_one_where_images_are_opaque(folder: Path) -> None:
    for dtype in (np.float32, bool):
        opaque = np.ones((4, 5, 7, 4), dtype=dtype)
        opaque[0, ..., :3] = 0
        images = sources.find(str(saved(folder, opaque))).load(CPU)
        assert images.at(torch.arange(4)).mean(dim=(1, 2, 3)).tolist() == [0, 1, 1, 1]


# Pictures with labels.


def pictures(folder: Path, names: Sequence[str], colored: Sequence[str] = ()) -> Path:
    for number, name in enumerate(names):
        (folder / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(folder / "pictures" / name)
    for name in colored:
        Image.new("RGB", (8, 8), (9, 0, 0)).save(folder / "pictures" / name)
    return folder / "pictures"


FACES = [f"{k:06d}.jpg" for k in range(1, 7)]
SIGNS = np.array([[1, -1], [-1, -1], [1, 1], [1, -1], [-1, 1], [-1, -1]])
CELEBA = "6\n5_o_Clock_Shadow Young\n" + "".join(
    f"{n} {a:2d} {b:2d}\n" for n, (a, b) in zip(FACES, SIGNS, strict=True)
)
KAGGLE = "image_id,5_o_Clock_Shadow,Young\r\n" + "".join(
    f"{n},{a},{b}\r\n" for n, (a, b) in zip(FACES, SIGNS, strict=True)
)
TABLES = {
    "the list of CelebA": CELEBA,
    "without its number": CELEBA.partition("\n")[2],
    "comma": KAGGLE,
    "semicolon, with a mark": "\ufeff" + KAGGLE.replace(",", "; "),
    "tab": KAGGLE.replace(",", "\t"),
    "text": KAGGLE.replace(",-1", ",no").replace(",1", ",yes"),
    "quotes": KAGGLE.replace("image_id", '"image_id"').replace("000001.jpg", '"./000001.jpg"'),
    "in another order": "\n".join([KAGGLE.splitlines()[0], *reversed(KAGGLE.splitlines()[1:])]),
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
def test_a_table_of_labels_is_read_as_it_is_usually_written(folder: Path, text: str) -> None:
    place = pictures(folder, FACES)
    (folder / "labels.txt").write_text(text, encoding="utf-8")
    source = sources.find(join(str(place), Reading(labels=str(folder / "labels.txt"))))
    assert (source.factor_names, source.factor_sizes) == (("5_o_Clock_Shadow", "Young"), (2, 2))
    np.testing.assert_array_equal(factors_of(source), SIGNS > 0)
    said = "2 factors of 6 pictures, with how many values: 5_o_Clock_Shadow 2, Young 2."
    assert source.notes == (f"{folder / 'labels.txt'}: {said}",)


def test_numbers_are_in_their_order_and_texts_in_that_of_the_alphabet(folder: Path) -> None:
    place = pictures(folder, [f"{k}.png" for k in range(8)])
    rows = zip([f"{k}.png" for k in range(8)], [10, 9, 10, 9, 2, 2, 2, 2], "baabccba", strict=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "size (cm)", "kind"), *rows])
    source = sources.find(f"{place}?labels={folder / 'labels.csv'}")
    assert source.factor_names == ("size_cm", "kind")
    np.testing.assert_array_equal(factors_of(source)[:, 0], [2, 1, 2, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(factors_of(source)[:, 1], [1, 0, 0, 1, 2, 2, 1, 0])


def test_labels_and_their_names_are_part_of_what_images_are(folder: Path) -> None:
    place = pictures(folder, FACES)
    recipes = {sources.find(str(place)).recipe}
    for number, text in enumerate(
        (KAGGLE, KAGGLE.replace("Young", "Old"), KAGGLE.replace("06.jpg,-1", "06.jpg,1"))
    ):
        (folder / f"{number}.csv").write_text(text)
        recipes.add(sources.find(f"{place}?labels={folder / f'{number}.csv'}").recipe)
    assert len(recipes) == 4
    assert len(list((folder / "data").glob("*.h5"))) == 1


@pytest.mark.parametrize("above", ["", "data/faces/", "..\\\\"])
def test_names_are_found_in_folders_and_without_them(folder: Path, above: str) -> None:
    place = pictures(folder, [f"{name[5]}/{name}" for name in FACES])
    (folder / "labels.csv").write_text(KAGGLE.replace("00000", f"{above}00000"))
    np.testing.assert_array_equal(
        factors_of(sources.find(f"{place}?labels={folder / 'labels.csv'}")), SIGNS > 0
    )
    pictures(folder, ["z/000001.jpg"])
    text = refused(f"{place}?labels={folder / 'labels.csv'}")
    assert (
        "expected names such as '1/000001.jpg'.\nPut the column with the names of the pictures first." in text
    )


def test_a_table_inside_the_folder_is_not_said_to_be_left_out_and_rows_that_are_not_used_are(
    folder: Path,
) -> None:
    place = pictures(folder, FACES[:4])
    (place / "labels.csv").write_text(KAGGLE)
    (place / "more.csv").write_text("")
    left_out, _, unused = sources.find(f"{place}?labels={place / 'labels.csv'}").notes
    assert "Left out: 1 .csv; only" in left_out
    assert unused == f"{place / 'labels.csv'}: 2 rows of pictures that are not in {place} are not used."


WRONG_TABLES = {
    "has no row for 2 of 6 pictures: '000005.jpg', '000006.jpg'.\nAdd rows": "\n".join(
        KAGGLE.splitlines()[:5]
    ),
    "has '1' in its first column; expected names such as '000001.jpg'.\nPut": re.sub(
        r"00000(\d)", r"\1,00000\1", KAGGLE
    ),
    "has no row for 1 of 6 pictures: '000001.jpg'.\nAdd rows after a line of names": "\n".join(
        f"{name},{a}" for name, (a, _) in zip(FACES, SIGNS, strict=True)
    ),
    "has two rows for '000001.jpg'; expected one.\nRemove": KAGGLE + "000001.jpg,1,1\n",
    "has 2 values in row 7 ('x.jpg'); expected 3.\nGive each picture": KAGGLE + "x.jpg,1\n",
    "has no value of 'Young' in some rows.\nGive every": KAGGLE.replace("01.jpg,1,-1", "01.jpg,1,"),
    "has no rows; expected a line of names": KAGGLE.splitlines()[0],
    "has no rows; expected a line of names, ": "",
    "has 4 names in its first line and 3 values in the next": KAGGLE.replace("Young", "Young,Old"),
    "expected names that differ.\nRename": KAGGLE.replace("Young", "5_o_Clock_Shadow"),
    "factors contain NaN": KAGGLE.replace("01.jpg,1", "01.jpg,nan"),
    "factor 'Young' has 6 values in 6 images": "\n".join(
        ["f,Young", *(f"{name},{k}" for k, name in enumerate(FACES))]
    ),
}


@pytest.mark.parametrize(("said", "text"), WRONG_TABLES.items())
def test_a_table_that_does_not_label_every_picture_is_refused(folder: Path, said: str, text: str) -> None:
    place = pictures(folder, FACES)
    (folder / "labels.csv").write_text(text)
    found = refused(f"{place}?labels={folder / 'labels.csv'}")
    assert found.startswith(str(folder / "labels.csv"))
    assert said in found


def test_a_table_that_is_no_text_is_refused(folder: Path) -> None:
    place = pictures(folder, FACES)
    assert "Give a table as text in UTF-8." in refused(f"{place}?labels={place / FACES[0]}")


def test_folders_are_labels_only_on_request(folder: Path) -> None:
    place = pictures(folder, [f"{kind}/{k}.png" for kind in ("dog", "cat", "ox") for k in range(3)])
    source = sources.find(str(place))
    assert source.factor_sizes == ()
    assert source.notes == (
        f"{place}: 3 folders: 'cat', 'dog', 'ox'. If they are labels, add --labels folders",
    )
    source = sources.find(f"{place}?labels=folders")
    assert source.factor_names == ("folder_0",)
    assert source.notes == (f"{place}: 1 factor of 9 pictures, with how many values: folder_0 3.",)
    np.testing.assert_array_equal(factors_of(source)[:, 0], np.repeat([0, 1, 2], 3))


def test_each_level_of_folders_is_a_factor(folder: Path) -> None:
    names = [f"{shape}/{size}/{k}.png" for shape in ("box", "ball") for size in ("10", "9") for k in range(2)]
    source = sources.find(f"{pictures(folder, names)}?labels=folders")
    assert (source.factor_names, source.factor_sizes) == (("folder_0", "folder_1"), (2, 2))
    np.testing.assert_array_equal(factors_of(source), np.repeat([(0, 0), (0, 1), (1, 0), (1, 1)], 2, axis=0))


def test_folders_at_several_depths_are_no_labels(folder: Path) -> None:
    place = pictures(folder, ["a/1.png", "a/2.png", "b/3.png", "b/deep/4.png"])
    assert "several depths, for example 'a/1.png' and 'b/deep/4.png'" in refused(f"{place}?labels=folders")
    pictures(folder, ["0.png"])
    assert "has a picture '0.png' in no folder" in refused(f"{place}?labels=folders")
    assert sources.find(str(place)).notes == ()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            "images=x",
            "--images x: for arrays; {0} is read as pictures.\nLeave it out; the ground truth of pictures",
        ),
        ("factors=x", "--factors x: for arrays; {0} is read as pictures."),
    ],
)
def test_options_of_arrays_are_refused_for_pictures(folder: Path, query: str, said: str) -> None:
    place = pictures(folder, FACES)
    assert said.format(place) in refused(f"{place}?{query}")


def test_all_pictures_in_color_among_grey_ones_are_in_one_error(folder: Path) -> None:
    place = pictures(folder, [f"a{k:02d}.png" for k in range(20)], ["b.png", "c.png", "d.png", "e.png"])
    text = refused(str(place))
    assert text.startswith(
        f"{place}: 4 pictures are in color, but the first 16 are grey: 'b.png', 'c.png', 'd.png', ....\nConvert"
    )
    assert not list((folder / "data").glob("*.h5"))


def test_links_are_followed_to_the_same_pictures(folder: Path) -> None:
    place = pictures(folder, FACES)
    before = sources.find(str(place)).recipe
    (folder / "linked").mkdir()
    for number, path in enumerate(sorted(place.iterdir())):
        (folder / "linked" / f"{number}.jpg").symlink_to(path)
    assert "add --follow-links" in refused(str(folder / "linked"))
    assert sources.find(f"{folder / 'linked'}?follow-links=yes").recipe == before
