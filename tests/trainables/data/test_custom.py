import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from trainables import engine, probe, reading, sources
from trainables.__main__ import main
from trainables.config import RunSpec, Value
from trainables.data.readers import cache, custom, custom_arrays, custom_pictures
from trainables.data.readers.preparation import Preparation
from trainables.engine import Pack
from trainables.errors import InputError
from trainables.reading import Reading

CPU = torch.device("cpu")
LEVELS = np.random.default_rng(0).integers(0, 256, (20, 5, 7, 3), dtype=np.uint8)
LABELS = np.arange(20) // 5
BITS = np.random.default_rng(1).integers(0, 2, (20, 5, 7), dtype=np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path / "data"))
    return tmp_path


def npz(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "mine.npz"
    np.savez_compressed(path, allow_pickle=True, **arrays)
    return path


def found(path: Path) -> np.ndarray:
    images = sources.find(str(path)).load(CPU)
    return images.at(torch.arange(len(images))).numpy()


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (LEVELS, LEVELS.transpose(0, 3, 1, 2) / 255),
        (LEVELS[..., :1], LEVELS[..., :1].transpose(0, 3, 1, 2) / 255),
        (LEVELS[..., 0], LEVELS[:, None, :, :, 0] / 255),
        (np.ascontiguousarray(LEVELS.transpose(0, 3, 1, 2)), LEVELS.transpose(0, 3, 1, 2) / 255),
        (LEVELS.astype(np.float32) / 255, LEVELS.transpose(0, 3, 1, 2) / 255),
        (BITS, BITS[:, None]),
        (BITS.astype(bool), BITS[:, None]),
        (BITS.astype(np.float64), BITS[:, None]),
        (BITS.astype(np.int64), BITS[:, None]),
        (LEVELS.astype(np.int64), LEVELS.transpose(0, 3, 1, 2) / 255),
        (LEVELS.astype(">u2"), LEVELS.transpose(0, 3, 1, 2) / 255),
    ],
    ids=[
        *(
            "color",
            "grey, one channel",
            "grey",
            "channels first",
            "floats",
            "bits",
            "bools",
            "floats of bits",
        ),
        *("int64 of bits", "int64", "big-endian uint16"),
    ],
)
def test_images_come_back_whatever_their_layout_and_type(
    folder: Path, stored: np.ndarray, expected: np.ndarray
) -> None:
    np.testing.assert_allclose(found(npz(folder, images=stored)), expected, atol=1e-7)
    with h5py.File(folder / "mine.h5", "w") as file:
        file.create_dataset("images", data=stored, chunks=(3, *stored.shape[1:]), compression="gzip")
    np.testing.assert_array_equal(found(folder / "mine.h5"), found(folder / "mine.npz"))
    np.save(folder / "mine.npy", stored)
    np.testing.assert_array_equal(found(folder / "mine.npy"), found(folder / "mine.npz"))
    assert len({sources.find(str(folder / f"mine.{suffix}")).recipe for suffix in ("h5", "npz", "npy")}) == 1


def test_binary_images_are_packed_and_levels_are_not(folder: Path) -> None:
    sources.find(str(npz(folder, images=BITS)))
    sources.find(str(npz(folder, images=LEVELS)))
    widths = sorted(h5py.File(path)["images"].shape[1] for path in (folder / "data").glob("*.h5"))
    assert widths == [5, 105]


def test_factors_are_coded_by_the_order_of_their_values(folder: Path) -> None:
    factors_NK = np.stack([np.repeat([0.5, -1.0, 7.0, 0.5], 5), np.arange(20) % 4 * 10], axis=1)
    source = sources.find(str(npz(folder, images=BITS, factors=factors_NK)))
    assert source.factor_names == ("factor_0", "factor_1")
    assert source.factor_sizes == (3, 4)
    found_NK = source.load(CPU).factors(np.arange(20))
    np.testing.assert_array_equal(found_NK[:, 0], np.repeat([1, 0, 2, 1], 5))
    np.testing.assert_array_equal(found_NK[:, 1], np.arange(20) % 4)


def test_images_are_known_by_their_content_and_not_by_their_path(folder: Path) -> None:
    first = sources.find(str(npz(folder, images=BITS))).recipe
    assert first.startswith("own images (")
    (folder / "elsewhere").mkdir()
    assert sources.find(str(npz(folder / "elsewhere", images=BITS))).recipe == first
    assert sources.find(str(npz(folder, images=1 - BITS))).recipe != first
    assert sources.find(str(npz(folder, images=BITS, factors=np.arange(20)[:, None] // 2))).recipe != first
    for shape in ((20, 7, 5), (20, 1, 7, 5), (20, 35, 1)):
        assert sources.find(str(npz(folder, images=BITS.reshape(shape)))).recipe != first
    assert (
        len(
            {
                sources.find(str(npz(folder, images=LEVELS.reshape(s)))).recipe
                for s in ((20, 15, 7), (20, 7, 15), (20, 5, 7, 3))
            }
        )
        == 3
    )


RECIPES = {
    "own images (8e0f1a5ec6e3)": {"images": LEVELS},
    "own images (b52020add9f0)": {"images": LEVELS, "factors": np.arange(20)[:, None] // 5},
    "own images (659d68b9029e)": {"images": BITS},
}


@pytest.mark.parametrize(("recipe", "arrays"), RECIPES.items())
def test_the_recipe_of_images_is_for_ever(folder: Path, recipe: str, arrays: dict[str, np.ndarray]) -> None:
    """It is part of the keys of runs that were trained on them."""
    assert sources.find(str(npz(folder, **arrays))).recipe == recipe


def test_the_recipe_of_pictures_is_for_ever(folder: Path) -> None:
    (folder / "pictures").mkdir()
    for number, picture in enumerate(LEVELS):
        enlarged = Image.fromarray(picture).resize((70, 90), Image.Resampling.NEAREST)
        enlarged.save(folder / "pictures" / f"{number:02d}.png")
    assert sources.find(str(folder / "pictures")).recipe == "own images (e202495b2266)"


def test_a_file_is_converted_once(folder: Path) -> None:
    path = npz(folder, images=LEVELS)
    sources.find(str(path))
    (kept,) = (folder / "data").glob("*.h5")
    written_ns = kept.stat().st_mtime_ns
    sources.find(str(path))
    assert kept.stat().st_mtime_ns == written_ns


def pictures(folder: Path, mode: str, sizes: Sequence[tuple[int, int]] = ((64, 64),) * 3) -> Path:
    place = folder / "pictures"
    (place / "deep").mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(2)
    for number, (width, height) in enumerate(sizes):
        shape = (height, width) if mode == "L" else (height, width, 3)
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8), mode).save(
            place / "deep" / f"{number}.png"
        )
    return place


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_a_folder_and_an_archive_of_pictures_are_the_same_images(
    folder: Path, mode: str, channels: int
) -> None:
    place = pictures(folder, mode, ((64, 64), (128, 130), (200, 64)))
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for path in sorted(place.rglob("*.png")):
            archive.write(path, path.relative_to(place))
    images = found(place)
    assert images.shape == (3, channels, 64, 64)
    whole = np.asarray(Image.open(place / "deep" / "0.png")).reshape(64, 64, channels)
    np.testing.assert_allclose(images[0], whole.transpose(2, 0, 1) / 255, atol=1e-7)
    middle = np.asarray(Image.open(place / "deep" / "2.png")).reshape(64, 200, channels)[:, 68:132]
    np.testing.assert_allclose(images[2], middle.transpose(2, 0, 1) / 255, atol=1e-7)
    np.testing.assert_array_equal(found(folder / "pictures.zip"), images)
    assert sources.find(str(place)).recipe == sources.find(str(folder / "pictures.zip")).recipe
    assert sources.find(str(place)).factor_names == ()


def late_color(folder: Path) -> Path:
    place = pictures(folder, "L", ((64, 64),) * custom_pictures.NUM_LOOKED_AT)
    Image.new("RGB", (64, 64), (255, 0, 0)).save(place / "late.png")
    return place


def single(folder: Path) -> Path:
    Image.new("L", (64, 64)).save(folder / "mine.png")
    return folder / "mine.png"


def text(folder: Path) -> Path:
    (folder / "mine.txt").write_text("# notes")
    return folder / "mine.txt"


def web_page(folder: Path) -> Path:
    (folder / "mine.npz").write_text("<html>Log in</html>")
    return folder / "mine.npz"


def pickled(folder: Path) -> Path:
    np.savez(folder / "mine.npz", images=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return folder / "mine.npz"


def climbing(folder: Path) -> Path:
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "png")
    with zipfile.ZipFile(folder / "mine.zip", "w") as archive:
        archive.writestr("../evil.png", buffer.getvalue())
    return folder / "mine.zip"


def empty(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


def with_third(value: float, row: int = 2) -> np.ndarray:
    """Images with a value in the third of them, or in another."""
    images = np.full((20, 2, 2), 0.5)
    images[row, 0, 1] = value
    return images


WRONG: dict[str, Callable[[Path], Path]] = {
    "A web page was saved": web_page,
    "holds objects, which are never unpickled": pickled,
    r"\.\./evil\.png": climbing,
    r"nothing is an empty folder; expected pictures \(\.png .*\)\.\nCheck the path": empty,
    r"1 picture is in color, but the first 16 are grey: 'late\.png'\.\nConvert all": late_color,
    r"is a single picture; expected an \.npz, \.npy or HDF5 file, or a folder, .*\nGive the folder that it is in": single,
    r"begins with '# notes'; expected an \.npz, \.npy or HDF5 file, or a folder, \.zip or \.tar .*\nCheck the path\.$": text,
    r"mine\.npz has 1 image; at least 2 are needed\.\nAdd images": lambda f: npz(f, images=BITS[:1]),
    "factor 0 has 20 values in 20 images": lambda f: npz(f, images=BITS, factors=np.arange(20.0)[:, None]),
    r"is empty: its shape is \(0, 5, 7\)\.\nSave at least 2": lambda f: npz(f, images=BITS[:0]),
    r"image 3 has levels up to 256; expected 0 to 255\.\nScale them": lambda f: npz(
        f, images=with_third(256, 3).astype(np.int64)
    ),
    r"image 2 has levels from -7 to 0; expected 0 to 255\.\nShift and scale": lambda f: npz(
        f, images=with_third(-7).astype(np.int16)
    ),
    r"image 2 has levels down to -1; expected 0 to 255\.\nIf they are -1 and 1, save": lambda f: npz(
        f, images=with_third(-1).astype(np.int8)
    ),
    r"images have 2 channels, .*; expected 1, 3 or 4\.\n.* images\[\.\.\., :1\]": lambda f: npz(
        f, images=LEVELS[..., :2]
    ),
    r"images have 5 channels, shape \(20, 9, 7, 5\); .*\n.* images\[\.\.\., :3\]": lambda f: npz(
        f, images=np.zeros((20, 9, 7, 5), dtype=np.uint8)
    ),
    r"images have 5 channels, shape \(20, 5, 9, 7\); .*\n.* images\[:, :3\]": lambda f: npz(
        f, images=np.zeros((20, 5, 9, 7), dtype=np.uint8)
    ),
    r"images have shape \(20, 105\); expected \(N, H, W\)": lambda f: npz(f, images=LEVELS.reshape(20, -1)),
    "images are 1 x 2000; expected sides of at most 1024": lambda f: npz(
        f, images=np.zeros((1, 1, 2000), dtype=np.uint8)
    ),
    r"image 0 has values up to 248; expected 0 to 1\.\nDivide by 255, or save uint8": lambda f: npz(
        f, images=LEVELS.astype(np.float32)
    ),
    r"image 2 has values down to -0\.5; expected 0 to 1\.\nSave \(images \+ 1\) / 2": lambda f: npz(
        f, images=with_third(-0.5)
    ),
    r"image 2 has values up to 300; expected 0 to 1\.\nScale them": lambda f: npz(f, images=with_third(300)),
    "image 2 has NaN or infinity; expected 0 to 1": lambda f: npz(f, images=with_third(np.nan)),
    "image 2 has NaN or infinity; expected 0 to 1.": lambda f: npz(f, images=with_third(np.inf)),
    r"factors have shape \(19, 1\); expected \(20, K\).*\nSave them in this shape": lambda f: npz(
        f, images=BITS, factors=np.zeros((19, 1))
    ),
    "factors contain NaN": lambda f: npz(f, images=BITS, factors=np.full((20, 1), np.nan)),
    r"'factors' holds text; expected numbers\.\nSave a number in place of each": lambda f: npz(
        f, images=BITS, factors=np.full((20, 1), "red")
    ),
    "K at most 512": lambda f: npz(f, images=BITS, factors=np.zeros((20, 513))),
}


@pytest.mark.parametrize(("said", "make"), WRONG.items())
def test_what_are_no_images_is_refused_by_name_and_leaves_nothing(
    folder: Path, said: str, make: Callable[[Path], Path]
) -> None:
    path = make(folder)
    with pytest.raises(InputError, match=said) as refusal:
        sources.find(str(path)).load(CPU)
    assert str(path) in str(refusal.value)
    assert len(str(refusal.value).splitlines()) <= 3
    assert not list((folder / "data").glob("*.partial"))
    assert not (folder.parent / "evil.png").exists()


@pytest.mark.parametrize(
    ("names", "remedy"),
    [
        (["pics"], "--images pics"),
        (["whatever"], "--images whatever"),
        (["a b"], "--images 'a b'"),
        (["imgs", "labels"], "--images imgs, and the ground truth: --factors labels"),
        (["y_train", "x_train"], "--images x_train, and the ground truth: --factors y_train"),
        (["arr_0", "arr_1"], "--images arr_0, and the ground truth: --factors arr_1"),
        (["image", "factors"], "--images image"),
        (["foo", "bar"], "--images NAME"),
    ],
)
def test_arrays_under_other_names_are_named_with_the_options_that_read_them(
    folder: Path, names: list[str], remedy: str
) -> None:
    arrays = {name: LEVELS if name in ("pics", "imgs", "x_train") else np.arange(20) for name in names}
    with pytest.raises(InputError) as refusal:
        sources.find(str(npz(folder, **arrays)))
    listed = ", ".join(f"'{name}'" for name in names)
    assert str(refusal.value) == (
        f"{folder}/mine.npz has no array 'images'; it has {listed}.\nName the array of images: {remedy}"
    )


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_arrays_are_read_by_the_names_that_are_given(folder: Path, suffix: str) -> None:
    usual = sources.find(str(npz(folder, images=LEVELS, factors=LABELS[:, None]))).recipe
    path = folder / f"other.{suffix}"
    arrays: dict[str, np.ndarray] = {
        "train/x & y?": LEVELS,
        "train/labels": LABELS,
        "images": BITS,
        "factors": LABELS[::-1, None],
    }
    if suffix == "npz":
        np.savez(path, allow_pickle=True, **arrays)
    else:
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file[name] = array
    named = reading.join(str(path), Reading("train/x & y?", "train/labels"))
    source = sources.find(named)
    assert source.recipe == usual
    assert sorted(re.findall(r"not read: '(\w+)', '(\w+)'\.", source.notes[0])[0]) == ["factors", "images"]
    others = {sources.find(str(path)).recipe, sources.find(f"{path}?factors=train/labels").recipe}
    assert len({usual, *others}) == 3
    assert len(list((folder / "data").glob("*.h5"))) == 3


# What a person should know before training.

NOTES = [
    ({}, ""),
    ({"factors": LABELS[:, None]}, ""),
    ({"factors": LABELS[:, None], "meta": LABELS}, ": not read: 'meta'."),
    ({"meta": LABELS}, " has no array 'factors', so no ground truth; not read: 'meta'."),
    *(
        (
            {name: LABELS},
            f" has no array 'factors', so no ground truth; not read: '{name}'.\n"
            f"If '{name}' is the ground truth, add --factors {name}",
        )
        for name in ("labels", "y_train", "Latents", "factor", "arr_1")
    ),
]


@pytest.mark.parametrize(("arrays", "said"), NOTES)
def test_arrays_that_are_not_read_are_told(folder: Path, arrays: dict[str, np.ndarray], said: str) -> None:
    path = npz(folder, images=LEVELS, **arrays)
    assert sources.find(str(path)).notes == ((f"{path}{said}",) if said else ())


def mixed(folder: Path) -> Path:
    place = pictures(folder, "RGB", ((64, 64),) * 2)
    for name in ("a.gif", "b.GIF", "c.heic", "notes", ".hidden.gif"):
        (place / name).write_bytes(b"x")
    return place


def test_files_that_are_left_out_are_counted_with_the_reason(folder: Path) -> None:
    place = mixed(folder)
    assert sources.find(str(place)).notes == (
        f"{place}: 2 pictures are used. Left out: 2 .gif, 1 without suffix, 1 .heic;"
        " only .png .jpg .jpeg .bmp .ppm .pgm .webp .tif .tiff are read.",
    )
    for number in range(8):
        (place / f"a.kind{number}").write_bytes(b"x")
    (note,) = sources.find(str(place)).notes
    assert ", 6 others; only " in note
    (place / "deep" / "1.png").unlink()
    with pytest.raises(
        InputError, match=r"has 1 image; at least 2 are needed\.\n.*1 picture is used\. Left out: 2 \.gif"
    ):
        sources.find(str(place))


def test_pictures_of_which_none_is_left_out_need_no_note(folder: Path) -> None:
    assert sources.find(str(pictures(folder, "RGB"))).notes == ()


def test_notes_are_printed_before_training_by_the_core_and_once_by_the_driver_s_probe(
    folder: Path, capsys: pytest.CaptureFixture[str], arithmetic: None
) -> None:
    path = npz(folder, images=LEVELS, labels=LABELS)
    small = ["--set", "vae.network=mlp", "--set", "vae.width=8", "--set", "vae.latent_dim=2"]
    assert main(["beta_vae", "--data", str(path), *small, "--steps", "1"]) == 0
    said = capsys.readouterr().err
    assert f"Note: {path} has no array 'factors'" in said
    assert said.count("Note: ") == 1
    for _ in range(2):
        probe.resolved([(RunSpec("beta_vae", str(path), {"vae.network": "mlp"}, 0), [0, 1])])
    assert capsys.readouterr().err.count("Note: ") == 1


# Images that are not what the first of them are.


@pytest.mark.parametrize("late", [2, 200])
def test_levels_that_come_after_many_black_images_are_read(folder: Path, late: int) -> None:
    images = np.zeros((custom_arrays.PEEK + 5, 2, 2), dtype=np.uint8)
    images[-1] = late
    path = npz(folder, images=images)
    np.testing.assert_allclose(found(path), images[:, None] / 255, atol=1e-7)
    written_ns = {kept: kept.stat().st_mtime_ns for kept in (folder / "data").glob("*.h5")}
    recipe = sources.find(str(path)).recipe
    assert {kept: kept.stat().st_mtime_ns for kept in (folder / "data").glob("*.h5")} == written_ns
    assert len(written_ns) == 1
    images[0] = 1
    assert sources.find(str(npz(folder, images=images))).recipe != recipe


# Pictures that are to be turned.


def turned(place: Path, orientation: int, name: str = "0.png") -> None:
    """A picture of random pixels, whose EXIF data have an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    levels = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    place.mkdir(exist_ok=True)
    Image.fromarray(levels).save(place / name, exif=exif)
    Image.fromarray(levels).save(place / "1.png")


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda x_CHW: x_CHW,
    2: lambda x_CHW: x_CHW[:, :, ::-1],
    3: lambda x_CHW: x_CHW[:, ::-1, ::-1],
    4: lambda x_CHW: x_CHW[:, ::-1],
    5: lambda x_CHW: x_CHW.transpose(0, 2, 1),
    6: lambda x_CHW: np.rot90(x_CHW, -1, (1, 2)),
    7: lambda x_CHW: x_CHW.transpose(0, 2, 1)[:, ::-1, ::-1],
    8: lambda x_CHW: np.rot90(x_CHW, 1, (1, 2)),
    9: lambda x_CHW: x_CHW,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_pictures_are_turned_as_their_exif_data_say(folder: Path, orientation: int) -> None:
    turned(folder / "pictures", orientation)
    first, second = found(folder / "pictures")
    np.testing.assert_array_equal(first, UPRIGHT[orientation](second))


def test_the_orientation_is_applied_before_the_middle_is_cut_out(folder: Path) -> None:
    levels = np.zeros((64, 128, 3), dtype=np.uint8)
    levels[:, 32:96] = 200
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "pictures").mkdir()
    for name in ("0.png", "1.png"):
        Image.fromarray(levels).save(folder / "pictures" / name, exif=exif)
    np.testing.assert_allclose(found(folder / "pictures"), np.full((2, 1, 64, 64), 200 / 255), atol=1e-7)


def older_conversion(place: Path) -> Preparation:
    """What a version made that did not read EXIF data."""
    (wanted,) = custom_pictures.read(place, custom.KINDS).ways

    def blocks(first: int) -> Sequence[np.ndarray]:
        paths = sorted(place.rglob("*.*"))[first:]
        return [np.asarray(Image.open(path)).transpose(2, 0, 1).reshape(1, -1) for path in paths]

    older = replace(
        wanted, stem=wanted.stem.removesuffix("_upright"), blocks=lambda first: iter(blocks(first))
    )
    cache.prepare(older)
    return older


@pytest.mark.parametrize("orientation", [1, 9])
def test_an_older_conversion_of_pictures_that_are_upright_stays(
    folder: Path, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned(folder / "pictures", orientation)
    older = older_conversion(folder / "pictures")
    (wanted,) = custom_pictures.read(folder / "pictures", custom.KINDS).ways
    assert wanted.path == older.path
    monkeypatch.setattr(
        "trainables.data.readers.pictures.Pictures.are_upright", lambda _: pytest.fail("again")
    )
    recipe = sources.find(str(folder / "pictures")).recipe
    assert list((folder / "data").glob("*.h5")) == [older.path]
    older.path.unlink()
    assert sources.find(str(folder / "pictures")).recipe == recipe


def test_an_older_conversion_of_a_picture_that_is_not_upright_is_made_again(folder: Path) -> None:
    turned(folder / "pictures", 6)
    older = older_conversion(folder / "pictures")
    before = older.path.read_bytes()
    images = found(folder / "pictures")
    np.testing.assert_array_equal(images[0], np.rot90(images[1], -1, (1, 2)))
    assert len(list((folder / "data").glob("*.h5"))) == 2
    assert older.path.read_bytes() == before


def test_a_model_trains_on_images_of_ones_own(folder: Path, arithmetic: None) -> None:
    path = npz(folder, images=LEVELS, factors=np.arange(20)[:, None] // 5)
    fields: dict[str, Value] = {"vae.network": "mlp", "vae.latent_dim": 2, "vae.width": 8}
    run = engine.resolve(RunSpec("beta_vae", str(path), fields, 0))
    pack = Pack([run], run.source.load(CPU))
    pack.advance(3)
    assert pack.first_bad_steps() == [None]


def test_networks_that_do_not_take_the_images_are_refused_before_anything_is_built(folder: Path) -> None:
    path = npz(folder, images=LEVELS)
    with pytest.raises(InputError, match=r"these are 5 x 7\.\n"):
        engine.resolve(RunSpec("beta_vae", str(path), {"vae.network": "conv"}, 0))
    fitting = engine.resolve(RunSpec("beta_vae", str(path), {}, 0))
    assert fitting.key == engine.resolve(RunSpec("beta_vae", str(path), {"vae.network": "mlp"}, 0)).key


@pytest.mark.parametrize("factors", [None, np.arange(20)[:, None] // 5, np.zeros((20, 2))])
def test_a_pack_without_ray_trains_on_images_with_little_or_no_ground_truth(
    folder: Path, factors: np.ndarray | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = npz(folder, images=LEVELS, **({} if factors is None else {"factors": factors}))
    small = ["--set", "vae.network=mlp", "--set", "vae.width=8", "--set", "vae.latent_dim=2"]
    assert main(["beta_vae", "--data", str(path), *small, "--steps", "3"]) == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]
    assert {"recon_error", "gaussian_tc"} <= set(metrics)
    assert ("factor_vae_score" in metrics) == (factors is not None and bool(factors.any()))
    assert "modularity" not in metrics


def test_a_zip_of_pictures_may_hold_other_things(folder: Path) -> None:
    place = pictures(folder, "RGB")
    np.save(place / "meta.npy", np.zeros(3))
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for path in sorted(place.rglob("*.*")):
            archive.write(path, path.relative_to(place))
    assert sources.find(str(folder / "pictures.zip")).num_images == 3


def test_an_edit_that_keeps_size_and_time_is_noticed(folder: Path) -> None:
    path = npz(folder, images=LEVELS)
    before = sources.find(str(path)).recipe
    stat = path.stat()
    other = folder / "other.npz"
    np.savez_compressed(other, images=LEVELS[::-1])
    other.rename(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sources.find(str(path)).recipe != before
