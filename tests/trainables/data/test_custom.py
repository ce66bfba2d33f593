import io
import json
import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from trainables import engine, sources
from trainables.__main__ import main
from trainables.config import RunSpec
from trainables.data.readers import custom
from trainables.engine import Pack
from trainables.errors import InputError

CPU = torch.device("cpu")
LEVELS = np.random.default_rng(0).integers(0, 256, (20, 5, 7, 3), dtype=np.uint8)
BITS = np.random.default_rng(1).integers(0, 2, (20, 5, 7), dtype=np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path / "data"))
    return tmp_path


def npz(folder: Path, **arrays) -> Path:
    path = folder / "mine.npz"
    np.savez_compressed(path, **arrays)
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
    ],
    ids=["color", "grey, one channel", "grey", "channels first", "floats", "bits", "bools", "floats of bits"],
)
def test_images_come_back_whatever_their_layout_and_type(folder, stored, expected) -> None:
    np.testing.assert_allclose(found(npz(folder, images=stored)), expected, atol=1e-7)
    with h5py.File(folder / "mine.h5", "w") as file:
        file.create_dataset("images", data=stored, chunks=(3, *stored.shape[1:]), compression="gzip")
    np.testing.assert_array_equal(found(folder / "mine.h5"), found(folder / "mine.npz"))


def test_binary_images_are_packed_and_levels_are_not(folder) -> None:
    sources.find(str(npz(folder, images=BITS)))
    sources.find(str(npz(folder, images=LEVELS)))
    widths = sorted(h5py.File(path)["images"].shape[1] for path in (folder / "data").glob("*.h5"))
    assert widths == [5, 105]


def test_factors_are_coded_by_the_order_of_their_values(folder) -> None:
    factors_NK = np.stack([np.repeat([0.5, -1.0, 7.0, 0.5], 5), np.arange(20) % 4 * 10], axis=1)
    source = sources.find(str(npz(folder, images=BITS, factors=factors_NK)))
    assert source.factor_names == ("factor_0", "factor_1")
    assert source.factor_sizes == (3, 4)
    found_NK = source.load(CPU).factors(np.arange(20))
    np.testing.assert_array_equal(found_NK[:, 0], np.repeat([1, 0, 2, 1], 5))
    np.testing.assert_array_equal(found_NK[:, 1], np.arange(20) % 4)


def test_images_are_known_by_their_content_and_not_by_their_path(folder) -> None:
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


def test_a_file_is_converted_once(folder) -> None:
    path = npz(folder, images=LEVELS)
    sources.find(str(path))
    (kept,) = (folder / "data").glob("*.h5")
    written_ns = kept.stat().st_mtime_ns
    sources.find(str(path))
    assert kept.stat().st_mtime_ns == written_ns


def pictures(folder: Path, mode: str, sizes=((64, 64),) * 3) -> Path:
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
def test_a_folder_and_an_archive_of_pictures_are_the_same_images(folder, mode: str, channels: int) -> None:
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
    place = pictures(folder, "L", ((64, 64),) * custom.NUM_LOOKED_AT)
    Image.new("RGB", (64, 64), (255, 0, 0)).save(place / "late.png")
    return place


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


def late_level(folder: Path) -> Path:
    images = np.zeros((custom.PEEK + 5, 2, 2), dtype=np.uint8)
    images[-1] = 7
    return npz(folder, images=images)


def empty(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


WRONG = {
    "A web page was saved": web_page,
    "object|pickle": pickled,
    r"\.\./evil\.png": climbing,
    "picture": empty,
    r"late\.png' is in color, but the first 16 pictures are grey": late_color,
    "has 1 images, too few to train on": lambda folder: npz(folder, images=BITS[:1]),
    "factor 0 has 20 values in 20 images": lambda f: npz(f, images=BITS, factors=np.arange(20.0)[:, None]),
    "images": lambda folder: npz(folder, imgs=BITS),
    r"images are int64 \(20, 5, 7\); expected": lambda folder: npz(folder, images=BITS.astype(np.int64)),
    r"images are uint8 \(20, 5, 7, 2\); expected": lambda folder: npz(folder, images=LEVELS[..., :2]),
    r"images are uint8 \(20, 105\); expected": lambda folder: npz(folder, images=LEVELS.reshape(20, -1)),
    "sides of at most 1024": lambda folder: npz(folder, images=np.zeros((1, 1, 2000), dtype=np.uint8)),
    "values 0 to 255; expected": lambda folder: npz(folder, images=LEVELS.astype(np.float32)),
    "values 1 to 1 and NaN": lambda folder: npz(folder, images=np.full((2, 1, 2), [[1, np.nan]])),
    "levels up to 7, but the first ones only 0 and 1": late_level,
    r"factors have shape \(19, 1\); expected \(20, K\)": lambda f: npz(
        f, images=BITS, factors=np.zeros((19, 1))
    ),
    "factors contain NaN": lambda f: npz(f, images=BITS, factors=np.full((20, 1), np.nan)),
    "K at most 32": lambda f: npz(f, images=BITS, factors=np.zeros((20, 33))),
}


@pytest.mark.parametrize(("said", "make"), WRONG.items())
def test_what_are_no_images_is_refused_by_name_and_leaves_nothing(folder, said, make) -> None:
    path = make(folder)
    with pytest.raises(InputError, match=said) as refusal:
        sources.find(str(path)).load(CPU)
    assert str(path) in str(refusal.value)
    assert len(str(refusal.value).splitlines()) <= 3
    assert not list((folder / "data").glob("*.partial"))
    assert not (folder.parent / "evil.png").exists()


def test_a_model_trains_on_images_of_ones_own(folder, arithmetic) -> None:
    path = npz(folder, images=LEVELS, factors=np.arange(20)[:, None] // 5)
    fields = {"vae.network": "mlp", "vae.latent_dim": 2, "vae.width": 8}
    run = engine.resolve(RunSpec("beta_vae", str(path), fields, 0))
    pack = Pack([run], run.source.load(CPU))
    pack.advance(3)
    assert pack.first_bad_steps() == [None]


def test_networks_that_do_not_take_the_images_are_refused_before_anything_is_built(folder) -> None:
    path = npz(folder, images=LEVELS)
    with pytest.raises(InputError, match=r"64 x 64 images, but these are 5 x 7\.\nSet"):
        engine.resolve(RunSpec("beta_vae", str(path), {}, 0))


@pytest.mark.parametrize("factors", [None, np.arange(20)[:, None] // 5, np.zeros((20, 2))])
def test_a_pack_without_ray_trains_on_images_with_little_or_no_ground_truth(
    folder, factors, capsys: pytest.CaptureFixture[str]
) -> None:
    path = npz(folder, images=LEVELS, **({} if factors is None else {"factors": factors}))
    small = ["--set", "vae.network=mlp", "--set", "vae.width=8", "--set", "vae.latent_dim=2"]
    assert main(["beta_vae", "--data", str(path), *small, "--steps", "3"]) == 0
    metrics = json.loads(capsys.readouterr().out.splitlines()[-1])["metrics"]
    assert {"recon_error", "gaussian_tc"} <= set(metrics)
    assert ("factor_vae_score" in metrics) == (factors is not None and bool(factors.any()))
    assert "modularity" not in metrics


def test_a_zip_of_pictures_may_hold_other_things(folder, monkeypatch: pytest.MonkeyPatch) -> None:
    place = pictures(folder, "RGB")
    np.save(place / "meta.npy", np.zeros(3))
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for path in sorted(place.rglob("*.*")):
            archive.write(path, path.relative_to(place))
    assert sources.find(str(folder / "pictures.zip")).num_images == 3


def test_an_edit_that_keeps_size_and_time_is_noticed(folder) -> None:
    path = npz(folder, images=LEVELS)
    before = sources.find(str(path)).recipe
    stat = path.stat()
    other = folder / "other.npz"
    np.savez_compressed(other, images=LEVELS[::-1])
    other.rename(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sources.find(str(path)).recipe != before
