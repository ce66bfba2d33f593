import contextlib
import io
import os
import struct
import sys
import tarfile
import time
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainables.data.readers import members
from trainables.data.readers import pictures as readers
from trainables.data.readers.pictures import open_pictures
from trainables.errors import InputError

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 256, (12, 20, 3), dtype=np.uint8)
GREY = RANDOM.integers(0, 256, (12, 20), dtype=np.uint8)


def encoded(picture: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, kind, **options)
    return file.getvalue()


def in_folder(path: Path, contents: Mapping[str, bytes]) -> Path:
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def in_zip(path: Path, contents: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


TarMode = Literal["w:", "w:gz", "w:bz2", "w:xz"]


def in_tar(path: Path, contents: Mapping[str, bytes], mode: TarMode = "w:", **fields: object) -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in fields.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return path


ARCHIVES: dict[str, Callable[[Path, Mapping[str, bytes]], Path]] = {
    "zip": in_zip,
    "zip_stored": partial(in_zip, method=zipfile.ZIP_STORED),
    "tar_": partial(in_tar, mode="w:"),
    "tar_gz": partial(in_tar, mode="w:gz"),
    "tar_bz2": partial(in_tar, mode="w:bz2"),
    "tar_xz": partial(in_tar, mode="w:xz"),
}

Pack = Callable[[Mapping[str, bytes]], Path]


@pytest.fixture(params=["folder", *ARCHIVES])
def pack(request: pytest.FixtureRequest, tmp_path: Path) -> Pack:
    """Packs contents in each of the kinds, with a suffix that says nothing."""
    if request.param == "folder":
        return lambda contents: in_folder(tmp_path / "set.bin", contents)
    return lambda contents: ARCHIVES[request.param](tmp_path / "set.bin", contents)


Crop: TypeAlias = tuple[int, int] | Literal["square"] | None


def all_levels(path: Path, shape: tuple[int, int, int], crop: Crop = None) -> np.ndarray:
    with open_pictures(path) as pictures:
        return np.stack(list(pictures.levels(shape, crop)))


def levels_of(tmp_path: Path, content: bytes, shape: tuple[int, int, int], crop: Crop = None) -> np.ndarray:
    levels: np.ndarray = all_levels(in_folder(tmp_path, {"a.png": content}), shape, crop)[0]
    return levels


def checked(path: Path, refusal: pytest.ExceptionInfo[InputError]) -> str:
    text = str(refusal.value)
    assert text.startswith(str(path))
    assert 2 <= len(text.splitlines()) <= 3
    assert text.isascii()
    return text


def refused(path: Path) -> str:
    """What is said when the place is opened."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(InputError) as refusal, open_pictures(path):
        pytest.fail("it was opened")
    assert sorted(path.parent.rglob("*")) == before
    return checked(path, refusal)


def refused_at_reading(path: Path, shape: tuple[int, int, int] = (3, 4, 4), crop: Crop = None) -> str:
    with open_pictures(path) as pictures, pytest.raises(InputError) as refusal:
        list(pictures.levels(shape, crop))
    return checked(path, refusal)


# What is read.

TREE = {
    name: encoded(RANDOM.integers(0, 256, (9, 11, 3), dtype=np.uint8))
    for name in (
        "b/10.png",
        "b/9.png",
        "B/1.PNG",
        "a.png",
        "a/x.png",
        "\xe9.png",
        "\U0001f600.png",
        "\uffee.png",
    )
}


def test_every_kind_gives_the_same_pictures_in_the_order_of_the_bytes_of_their_names(pack: Pack) -> None:
    path = pack(
        TREE | {"b/notes.txt": b"x", ".hidden.png": b"x", ".git/a.png": b"x", "__MACOSX/b/9.png": b"x"}
    )
    with open_pictures(path) as pictures:
        names, levels = pictures.names, list(pictures.levels((3, 9, 11)))
    assert names == tuple(sorted(TREE, key=str.encode))
    assert len(pictures) == len(levels) == 8
    for name, found_CHW in zip(names, levels, strict=True):
        assert found_CHW.dtype == np.uint8
        assert found_CHW.flags.c_contiguous
        with Image.open(io.BytesIO(TREE[name])) as picture:
            np.testing.assert_array_equal(found_CHW, np.asarray(picture).transpose(2, 0, 1))


def test_reading_begins_where_it_is_told(pack: Pack) -> None:
    path = pack(TREE)
    everything = all_levels(path, (1, 4, 4))
    with open_pictures(path) as pictures:
        for first in range(10):
            found = list(pictures.levels((1, 4, 4), first=first))
            assert len(found) == max(8 - first, 0)
            np.testing.assert_array_equal([*everything[:first], *found], everything)


def test_two_readers_of_one_archive_do_not_disturb_each_other(pack: Pack) -> None:
    with open_pictures(pack(TREE)) as pictures:
        for one, other in zip(pictures.levels((3, 9, 9)), pictures.levels((3, 9, 9)), strict=True):
            np.testing.assert_array_equal(one, other)


def test_dots_in_names_of_a_tar_are_dropped(tmp_path: Path) -> None:
    path = in_tar(tmp_path / "a.tar", {"./b/./2.png": TREE["a.png"], "./1.png": TREE["a.png"]})
    with open_pictures(path) as pictures:
        assert pictures.names == ("1.png", "b/2.png")


def mean_and_round(levels: np.ndarray, factor: int, axis: int) -> np.ndarray:
    """The mean of runs of pixels along an axis, half a level rounded up."""
    shape = [*levels.shape[:axis], levels.shape[axis] // factor, factor, *levels.shape[axis + 1 :]]
    mean: np.ndarray = (2 * levels.reshape(shape).sum(axis + 1, dtype=np.int64) + factor) // (2 * factor)
    return mean


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    factors=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    margins=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
)
def test_a_crop_and_an_integer_factor_give_the_mean_of_each_rectangle(
    tmp_path_factory: pytest.TempPathFactory,
    height: int,
    width: int,
    factors: tuple[int, int],
    margins: tuple[int, int],
    channels: int,
    seed: int,
) -> None:
    crop = (height * factors[0], width * factors[1])
    shape = (crop[0] + margins[0], crop[1] + margins[1], channels)
    picture_HWC = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    content = encoded(picture_HWC[..., 0] if channels == 1 else picture_HWC)
    found_CHW = levels_of(tmp_path_factory.mktemp("set"), content, (channels, height, width), crop=crop)
    top, left = margins[0] // 2, margins[1] // 2
    cropped_CHW = picture_HWC[top : top + crop[0], left : left + crop[1]].transpose(2, 0, 1)
    expected_CHW = mean_and_round(mean_and_round(cropped_CHW, factors[1], 2), factors[0], 1)
    np.testing.assert_array_equal(found_CHW, expected_CHW)


def test_celeba_is_cropped_to_its_middle_before_it_is_resized(tmp_path: Path) -> None:
    picture_HWC = np.zeros((218, 178, 3), np.uint8)
    picture_HWC[35:183, 15:163] = 200
    found_CHW = levels_of(tmp_path, encoded(picture_HWC), (3, 64, 64), crop=(148, 148))
    np.testing.assert_array_equal(found_CHW, np.full((3, 64, 64), 200))


@pytest.mark.parametrize("picture_HW", [GREY, GREY.T])
def test_a_square_crop_is_the_largest_square_in_the_middle(tmp_path: Path, picture_HW: np.ndarray) -> None:
    found = levels_of(tmp_path, encoded(picture_HW), (1, 12, 12), crop="square")[0]
    np.testing.assert_array_equal(
        found, picture_HW[:, 4:16] if picture_HW.shape == (12, 20) else picture_HW[4:16]
    )


def test_a_white_border_gets_no_halo(tmp_path: Path) -> None:
    picture = np.where(np.arange(600) < 300, 40, 215).astype(np.uint8)[None].repeat(600, 0)
    found = levels_of(tmp_path, encoded(picture), (1, 64, 64))
    assert (found.min(), found.max()) == (40, 215)


def test_a_smaller_picture_is_enlarged_by_repeating_pixels(tmp_path: Path) -> None:
    np.testing.assert_array_equal(
        levels_of(tmp_path, encoded(GREY), (1, 24, 60))[0], np.kron(GREY, np.ones((2, 3)))
    )


def test_colors_become_their_luma_and_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    luma = (RGB @ np.array([299, 587, 114])) / 1000
    assert np.abs(levels_of(tmp_path, encoded(RGB), (1, 12, 20))[0] - luma).max() <= 1
    np.testing.assert_array_equal(levels_of(tmp_path, encoded(GREY), (3, 12, 20)), np.stack([GREY] * 3))


def test_transparent_pixels_are_white_and_half_transparent_ones_half(tmp_path: Path) -> None:
    alpha = RANDOM.integers(0, 256, (12, 20, 1), dtype=np.uint8)
    expected = (RGB * (alpha / 255) + 255 * (1 - alpha / 255)).transpose(2, 0, 1)
    found = levels_of(tmp_path, encoded(np.concatenate([RGB, alpha], 2)), (3, 12, 20))
    assert np.abs(found - expected).max() <= 1
    grey = levels_of(tmp_path, encoded(np.stack([GREY, alpha[..., 0]], 2)), (1, 12, 20))[0]
    assert np.abs(grey - (GREY * (alpha[..., 0] / 255) + 255 - alpha[..., 0])).max() <= 1


@pytest.mark.parametrize("transparency", [None, 2, bytes([255, 255, 0])])
def test_a_palette_is_looked_up_and_its_transparent_color_is_white(
    tmp_path: Path, transparency: int | bytes | None
) -> None:
    colors = np.array([[250, 0, 0], [0, 120, 0], [0, 0, 90]], dtype=np.uint8)
    indices = RANDOM.integers(0, 3, (12, 20), dtype=np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture.putdata(indices.ravel().tolist())
    picture.putpalette(colors.ravel().tolist())
    content = encoded(picture) if transparency is None else encoded(picture, transparency=transparency)
    found = levels_of(tmp_path, content, (3, 12, 20))
    if transparency is not None:
        colors[2] = 255
    np.testing.assert_array_equal(found, colors[indices].transpose(2, 0, 1))


FORMATS = {
    "a.png": "PNG",
    "a.bmp": "BMP",
    "a.ppm": "PPM",
    "a.webp": "WEBP",
    "a.jpg": "JPEG",
    "a.JPEG": "JPEG",
    "a.tif": "TIFF",
    "a.TIFF": "TIFF",
}


@pytest.mark.parametrize(("name", "kind"), FORMATS.items())
def test_every_format_is_decoded(tmp_path: Path, name: str, kind: str) -> None:
    ramp = np.indices((16, 16, 3)).sum(0).astype(np.uint8) * 5  # smooth, so that JPEG changes it little
    options = {"lossless": True} if kind == "WEBP" else {}
    found = all_levels(in_folder(tmp_path, {name: encoded(ramp, kind, **options)}), (3, 16, 16))[0]
    assert np.abs(found - ramp.transpose(2, 0, 1).astype(int)).max() <= (8 if kind == "JPEG" else 0)


def test_a_binary_picture_is_black_and_white(tmp_path: Path) -> None:
    found = levels_of(tmp_path, encoded(Image.fromarray(GREY > 99)), (1, 12, 20))[0]
    np.testing.assert_array_equal(found, np.where(GREY > 99, 255, 0))


DEEP = np.array([[0, 128, 129], [257, 40_000, 65_535]], dtype=np.uint16)
DEEP_FILES = {
    "PNG": encoded(DEEP),
    "TIFF": encoded(DEEP, "TIFF"),
    "TIFF of big-endian numbers": encoded(
        Image.frombytes("I;16B", (3, 2), DEEP.astype(">u2").tobytes()), "TIFF"
    ),
    "PGM": b"P5 3 2 65535\n" + DEEP.astype(">u2").tobytes(),
}


@pytest.mark.parametrize("content", DEEP_FILES.values(), ids=DEEP_FILES)
def test_grey_pictures_of_16_bits_are_scaled_and_not_cut_off(tmp_path: Path, content: bytes) -> None:
    expected = np.rint(DEEP / 65_535 * 255)
    np.testing.assert_array_equal(levels_of(tmp_path, content, (1, 2, 3))[0], expected)
    np.testing.assert_array_equal(levels_of(tmp_path, content, (3, 2, 3))[2], expected)


def test_a_tiff_is_turned_upright_once(tmp_path: Path) -> None:
    in_folder(tmp_path, {"a.tif": encoded(GREY, "TIFF", tiffinfo={274: 6})})
    with open_pictures(tmp_path) as pictures:
        (found,) = pictures.levels((1, 20, 12), is_turned_upright=True)
    np.testing.assert_array_equal(found[0], np.rot90(GREY, -1))


def test_sorted_reading_of_a_tar_in_another_order_takes_linear_time(tmp_path: Path) -> None:
    content = encoded(np.zeros((2, 2), np.uint8))
    path = in_tar(tmp_path / "a.tar", {f"{k:05d}.png": content for k in reversed(range(3000))})
    start_s = time.monotonic()
    with open_pictures(path) as pictures:
        assert sum(1 for _ in pictures.levels((1, 2, 2))) == 3000
    assert time.monotonic() - start_s < 20  # 1 s; 3000 passes over the archive take minutes


# Places that are refused.


def test_a_missing_or_empty_place_is_refused(tmp_path: Path) -> None:
    assert "is missing; expected a folder, .zip or .tar of pictures" in refused(tmp_path / "set.zip")
    (tmp_path / "set.tar").touch()
    assert "is empty" in refused(tmp_path / "set.tar")


@pytest.mark.parametrize("name", ["set.zip", "set.tar", "set.png"])
def test_a_web_page_under_the_name_of_an_archive_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<!DOCTYPE html><html>")
    text = refused(tmp_path / name)
    assert "begins with '<!DOCTYPE html>" in text
    assert "A web page was saved instead of the data. Download it again." in text


def test_a_single_picture_is_refused_as_a_place(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(TREE["a.png"])
    text = refused(tmp_path / "a.png")
    assert "is a single picture; expected a folder, .zip or .tar of pictures.\nGive the folder" in text


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_a_truncated_archive_is_refused(tmp_path: Path, kind: str, keep: float) -> None:
    path = ARCHIVES[kind](tmp_path / "set", {f"{k}.png": RANDOM.bytes(2000) for k in range(20)})
    size = path.stat().st_size if kind != "tar_" else 20 * 2560
    os.truncate(path, int(size * keep))
    assert "is truncated or damaged" in refused(path)


@pytest.mark.parametrize("end", [0, 100, 512])
def test_a_tar_that_ends_between_two_members_is_refused(tmp_path: Path, end: int) -> None:
    path = in_tar(tmp_path / "set.tar", {"1.png": bytes(512), "2.png": bytes(512)})
    os.truncate(path, 2 * 1024 if end == 0 else 1024 + end)
    assert "truncated" in refused(path)


def test_a_damaged_header_within_a_tar_is_refused(tmp_path: Path) -> None:
    path = in_tar(tmp_path / "set.tar", {"1.png": bytes(512), "2.png": bytes(512)})
    content = bytearray(path.read_bytes())
    content[1024 + 3] ^= 1
    path.write_bytes(content)
    assert "truncated" in refused(path)


def test_a_place_without_pictures_is_refused_with_what_it_has(pack: Pack) -> None:
    path = pack({f"{k:02d}.gif": b"x" for k in range(12)})
    text = refused(path)
    assert "has no pictures (.png .jpg .jpeg .bmp .ppm .pgm .webp .tif .tiff); it has " in text
    assert text.count(".gif") == 10
    assert "..." in text
    assert text.endswith("Convert them to .png.")


def test_a_place_without_pictures_is_refused_with_what_helps(tmp_path: Path) -> None:
    in_folder(tmp_path / "set", {"deep/a.npz": b"x"})
    assert f"Give the path of the file: {tmp_path / 'set' / 'deep' / 'a.npz'}" in refused(tmp_path / "set")
    assert "Check the path, or download it again." in refused(in_zip(tmp_path / "a.zip", {"a.npz": b"x"}))
    assert "is an empty archive; expected pictures (.png " in refused(in_zip(tmp_path / "a.zip", {}))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "is an empty folder; expected pictures (.png " in refused(tmp_path)


def test_files_that_are_no_pictures_are_counted_unless_they_are_hidden(pack: Pack) -> None:
    others = (
        "a.gif",
        "b/c.GIF",
        "notes",
        "x.\u1234",
        "x.muchtoolongsuffix",
        ".a.gif",
        ".git/a.gif",
        "__MACOSX/a.gif",
    )
    with open_pictures(pack(TREE | dict.fromkeys(others, b"x"))) as pictures:
        assert dict(pictures.left_out) == {".gif": 2, "": 1, "of other kinds": 2}


def test_pictures_are_turned_upright_only_where_that_is_asked_for(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    plain = Image.fromarray(GREY)
    for content, is_turned in ((encoded(plain), False), (encoded(plain, exif=exif), True), (b"noise", False)):
        with open_pictures(in_folder(tmp_path, {"a.png": content})) as pictures:
            assert pictures.are_upright() != is_turned
            if content != b"noise":
                (found,) = pictures.levels((1, 12, 20))
                np.testing.assert_array_equal(found[0], GREY)
                (found,) = pictures.levels((1, 12, 20), is_turned_upright=True)
                np.testing.assert_array_equal(found[0], GREY[::-1, ::-1] if is_turned else GREY)


def test_a_picture_whose_exif_data_are_damaged_is_read_as_it_is(tmp_path: Path) -> None:
    path = in_folder(tmp_path, {"a.png": encoded(Image.fromarray(GREY), exif=b"Exif\0\0MM\0*\0\0\0\x08\0")})
    with open_pictures(path) as pictures:
        assert pictures.are_upright()
        (found,) = pictures.levels((1, 12, 20), is_turned_upright=True)
    np.testing.assert_array_equal(found[0], GREY)


def test_a_compressed_tar_that_is_large_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "_MAX_UNPACKED_BYTES", 10240)
    path = in_tar(tmp_path / "set.tar.gz", {"a.png": bytes(8000)}, "w:gz")
    with open_pictures(path) as pictures:
        assert pictures.names == ("a.png",)
    in_tar(path, {"a.png": bytes(12000)}, "w:gz")
    text = refused(path)
    assert "is compressed" in text
    assert "gunzip" in text


def test_a_compressed_file_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz").write_bytes(b"\x1f\x8b" + zlib.compress(b"<html>", wbits=31)[2:])
    assert "begins with '<html>'" in refused(tmp_path / "set.tar.gz")


def test_too_many_members_are_refused(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_MAX_MEMBERS", 3)
    path = pack({f"{k}.png": b"" for k in range(4)})
    assert "has more than 3 members" in refused(path)


# Members that are refused.


@pytest.mark.parametrize(
    "name", ["/a.png", "../a.png", "b/../../a.png", "C:a.png", "c:/a.png", "\\a.png", "b\\..\\..\\a.png"]
)
@pytest.mark.parametrize("kind", ["zip", "tar_"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    path = ARCHIVES[kind](tmp_path / "set", {"ok.png": TREE["a.png"], name: TREE["a.png"]})
    text = refused(path)
    assert ascii(name) in text
    assert "names inside the archive" in text


def test_a_name_with_a_nul_is_refused(tmp_path: Path) -> None:
    path = in_zip(tmp_path / "a.zip", {"a.png_b.png": TREE["a.png"]})
    path.write_bytes(path.read_bytes().replace(b"a.png_b", b"a.png\0b"))
    assert r"'a.png\x00b.png'; expected names inside the archive" in refused(path)
    path = in_tar(tmp_path / "a.tar", {"a.png": TREE["a.png"]}, pax_headers={"path": "a\0b.png"})
    assert r"'a\x00b.png'; expected names inside the archive" in refused(path)


def test_unsafe_names_are_refused_even_where_they_are_no_pictures(tmp_path: Path) -> None:
    assert "names inside the archive" in refused(in_zip(tmp_path / "a.zip", TREE | {"../evil.sh": b"x"}))


KINDS = {
    "symbolic": tarfile.SYMTYPE,
    "hard": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "character": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "unknown": b"Z",
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_is_no_plain_file_in_a_tar_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = in_tar(tmp_path / "set.tar", {"a.png": b""}, type=kind, linkname="/etc/passwd")
    assert "'a.png' is a link, a device or something else than a plain file" in refused(path)


def test_a_sparse_file_in_a_tar_is_refused(tmp_path: Path) -> None:
    path = in_tar(tmp_path / "set.tar", {"a.png": bytes(512)}, type=tarfile.GNUTYPE_SPARSE)
    assert "'a.png' is a link, a device or something else than a plain file" in refused(path)


def test_a_negative_size_in_a_tar_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.png")
    member.size = -512  # so that the next member is this one again
    path = tmp_path / "set.tar"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "'a.png' is a link, a device or something else than a plain file" in refused(path)


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("a.png")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "'a.png' is a link" in refused(tmp_path / "a.zip")


def test_links_in_a_folder_may_lead_inside_only(tmp_path: Path) -> None:
    folder = in_folder(tmp_path / "set", {"b/a.png": TREE["a.png"]})
    (tmp_path / "out.png").write_bytes(TREE["a.png"])
    (folder / "c.png").symlink_to("b/a.png")
    (folder / "loop").symlink_to(folder)
    (tmp_path / "link").symlink_to(folder)
    with open_pictures(tmp_path / "link") as pictures:
        assert pictures.names == ("b/a.png", "c.png")
        assert len(list(pictures.levels((1, 4, 4)))) == 2
    for target in (tmp_path / "out.png", tmp_path, Path("/dev/zero"), Path("../out.png")):
        (folder / "d.png").symlink_to(target)
        assert "'d.png' is a link that leads outside the folder" in refused(folder)
        (folder / "d.png").unlink()


def test_links_are_followed_on_request(tmp_path: Path) -> None:
    """As in a content store, whose files are links into another folder."""
    store = in_folder(tmp_path / "store", {"1a2b": TREE["a.png"], "deep/c.png": TREE["b/9.png"]})
    folder = in_folder(tmp_path / "set", {"own.png": TREE["a.png"]})
    (folder / "a.png").symlink_to(store / "1a2b")
    (folder / "more").symlink_to(store / "deep")
    text = refused(folder)
    assert "is a link that leads outside the folder.\nRemove it, or" in text
    assert "add --follow-links" in text
    with open_pictures(folder, is_following=True) as pictures:
        assert pictures.names == ("a.png", "more/c.png", "own.png")
        first, _, third = pictures.levels((3, 9, 11))
    np.testing.assert_array_equal(first, third)


@pytest.mark.parametrize("target", [".", "..", "../set/b"])
def test_a_link_to_a_folder_that_it_is_in_ends_nothing_in_circles(tmp_path: Path, target: str) -> None:
    folder = in_folder(tmp_path / "set", {"a.png": TREE["a.png"], "b/b.png": TREE["a.png"]})
    (folder / "b" / "loop").symlink_to(folder / target)
    said = r"'b/loop' is a link to a folder that it is in\."
    with pytest.raises(InputError, match=said), open_pictures(folder, is_following=True):
        pytest.fail("it was opened")


def test_links_between_two_folders_end_nothing_in_circles(tmp_path: Path) -> None:
    folder, other = (
        in_folder(tmp_path / "set", {"a.png": TREE["a.png"]}),
        in_folder(tmp_path / "b", {"b": b""}),
    )
    (folder / "there").symlink_to(other)
    (other / "back").symlink_to(folder)
    said = r"'there/back' is a link to a folder that it is in\."
    with pytest.raises(InputError, match=said), open_pictures(folder, is_following=True):
        pytest.fail("it was opened")


def test_a_pipe_in_a_folder_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    assert "'a.png' is neither a file nor a folder" in refused(tmp_path)


def test_a_broken_link_in_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("b.png")
    assert "'a.png' cannot be read (No such file or directory).\nCheck" in refused(tmp_path)


def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, listed = in_folder(tmp_path, {"a.png": b"", "b/b.png": b""}), os.scandir

    def scandir(
        folder: str,
    ) -> AbstractContextManager[
        Iterator[os.DirEntry[str]]
    ]:  # root, as whom tests may run, may read everything
        if str(folder).endswith("b"):
            raise PermissionError(13, "Permission denied", folder)
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match="Permission denied"), open_pictures(path):
        pytest.fail("it was opened")


def test_an_encrypted_or_rarely_compressed_member_is_refused(tmp_path: Path) -> None:
    path = in_zip(tmp_path / "a.zip", {"a.png": TREE["a.png"]}, zipfile.ZIP_LZMA)
    assert "'a.png' is compressed with zip method 14" in refused(path)
    path = in_zip(tmp_path / "a.zip", {"a.png": TREE["a.png"]})
    content = bytearray(path.read_bytes())
    for at in (6, content.index(b"PK\x01\x02") + 8):  # the flags, in front of the member and in the directory
        content[at] |= 1
    path.write_bytes(content)
    text = refused(path)
    assert "'a.png' is encrypted" in text
    assert "without a password" in text


def test_a_member_that_declares_too_much_is_refused(pack: Pack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_MAX_PICTURE_BYTES", 1000)
    with open_pictures(pack({"a.png": bytes(1000), "b.mat": bytes(5000)})) as pictures:
        assert pictures.names == ("a.png",)
    path = pack({"a.png": bytes(1001)})
    assert "'a.png' declares 1001 bytes; expected at most 1000" in refused(path)


def test_the_limit_of_a_member_is_64_mib() -> None:
    assert readers._MAX_PICTURE_BYTES == 64 * 1024**2


def test_a_zip_member_is_inflated_no_further_than_it_declares(tmp_path: Path) -> None:
    path = in_zip(tmp_path / "a.zip", {"a.png": bytes(50_000_000)})
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", 50_000_000), struct.pack("<I", 1000)))
    tracemalloc.start()
    assert "is truncated or damaged (Bad CRC-32 for file 'a.png')" in refused_at_reading(path)
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_a_zip_member_of_fewer_bytes_than_it_declares_is_refused(tmp_path: Path) -> None:
    path, size = in_zip(tmp_path / "a.zip", {"a.png": TREE["a.png"]}), len(TREE["a.png"])
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", size + 10)))
    assert "the data ends early" in refused_at_reading(path)


def test_a_tar_that_is_cut_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    path = in_tar(tmp_path / "a.tar", TREE)
    with open_pictures(path) as pictures:
        os.truncate(path, 512)
        with pytest.raises(InputError, match="the data ends early"):
            list(pictures.levels((1, 4, 4)))


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = in_tar(tmp_path / "a.tar", {"a.png": TREE["a.png"], "./a.png": TREE["a.png"]})
    assert "two members 'a.png'" in refused(path)


@settings(max_examples=80, deadline=None)
@given(kind=st.sampled_from(sorted(ARCHIVES)), at=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_damage_anywhere_in_an_archive_is_an_input_error_if_any(
    tmp_path_factory: pytest.TempPathFactory, kind: str, at: float, bits: int
) -> None:
    path = ARCHIVES[kind](
        tmp_path_factory.mktemp("set") / "a", {"a.png": TREE["a.png"], "b.png": TREE["b/9.png"]}
    )
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= bits
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        all_levels(path, (3, 4, 4))


# Pictures that are refused.


def pages(*pictures: np.ndarray) -> bytes:
    """A TIFF of several pages."""
    first, *others = map(Image.fromarray, pictures)
    return encoded(first, "TIFF", save_all=True, append_images=others)


BROKEN = {
    "empty": (
        b"",
        "is empty; expected a complete PNG, JPEG, BMP, PPM, WEBP or TIFF picture.\nRemove it or replace",
    ),
    "a web page": (b"<html>404</html>", "begins with '<html>404</html>'"),
    "text": (
        b"404",
        "begins with '404'; expected a complete PNG, JPEG, BMP, PPM, WEBP or TIFF picture.\nRemove it",
    ),
    "noise": (
        b"\x94" + bytes(50),
        "is not a complete PNG, JPEG, BMP, PPM, WEBP or TIFF picture.\nRemove it or replace",
    ),
    "a PNG of noise": (
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        "is not a complete PNG, JPEG, BMP, PPM, WEBP or TIFF picture",
    ),
    "a GIF": (encoded(GREY, "GIF"), "is a GIF picture; expected a complete PNG"),
    "half a TIFF": (encoded(RGB, "TIFF")[:-100], "is truncated or damaged"),
    "pages of a TIFF": (pages(GREY, GREY), "has 2 pages; expected one.\nSave each as a picture of its own."),
    "32 bits of TIFF": (
        encoded(GREY.astype(np.int32), "TIFF"),
        "has numbers of 32 bits (mode I); expected 8 or",
    ),
    "floats of TIFF": (encoded(GREY.astype(np.float32), "TIFF"), "has numbers of 32 bits (mode F)"),
    "half a PNG": (encoded(RGB)[:400], "is truncated or damaged"),
    "half a JPEG": (encoded(RGB, "JPEG")[:-100], "is truncated or damaged (image file is truncated"),
    "half a BMP": (encoded(RGB, "BMP")[:-100], "is truncated or damaged (image file is truncated"),
    "half a WEBP": (encoded(RGB, "WEBP", lossless=True)[:-100], ""),
    "half a PPM": (encoded(RGB, "PPM")[:-100], "is truncated or damaged (image file is truncated"),
}


@pytest.mark.parametrize(("content", "said"), BROKEN.values(), ids=BROKEN)
def test_a_picture_that_cannot_be_decoded_is_refused_by_name(pack: Pack, content: bytes, said: str) -> None:
    path = pack({"a.png": TREE["a.png"], "b.png": content})
    text = refused_at_reading(path)
    assert f"{path}: 'b.png' " in text
    assert said in text


@pytest.mark.parametrize(("num_bad", "named"), [(2, "b00 b01"), (3, "b00 b01 b02"), (9, "b00 b01 b02 ...")])
def test_all_pictures_that_cannot_be_decoded_are_in_one_error(pack: Pack, num_bad: int, named: str) -> None:
    good = {f"{name}.png": TREE["a.png"] for name in ("a", "b00z", "c")}
    path = pack(good | {f"b{k:02d}.png": b"404" for k in range(num_bad)})
    first, second, third = refused_at_reading(path).splitlines()
    assert first == f"{path}: {num_bad} of {num_bad + 3} pictures cannot be used."
    said = "begins with '404'; expected a complete PNG, JPEG, BMP, PPM, WEBP or TIFF picture."
    assert second == " ".join(n if n == "..." else f"'{n}.png' {said}" for n in named.split())
    assert third == "Remove or replace them."
    with (
        open_pictures(path) as pictures,
        pytest.raises(InputError, match=f"{num_bad - 1} of|'b01.png' begins"),
    ):
        list(pictures.levels((3, 4, 4), first=2))


def png_header(height: int, width: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(8000, 8001), (10000, 10000), (20000, 20000), (1, 2**31 - 1)])
def test_a_picture_of_more_than_64_megapixels_is_refused_without_a_warning(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    in_folder(tmp_path, {"a.png": png_header(*size)})
    assert "'a.png' has more than 64 megapixels" in refused_at_reading(tmp_path)
    in_folder(tmp_path, {"a.png": png_header(8000, 8000)})
    assert "'a.png' is truncated or damaged" in refused_at_reading(tmp_path)


@pytest.mark.parametrize("crop", [(13, 20), (12, 21)])
def test_a_picture_that_is_smaller_than_the_crop_is_refused(tmp_path: Path, crop: tuple[int, int]) -> None:
    in_folder(tmp_path, {"a.png": encoded(GREY)})
    text = refused_at_reading(tmp_path, crop=crop)
    assert f"'a.png' has 12 x 20 pixels; expected at least the crop, {crop[0]} x {crop[1]}" in text


def test_warnings_of_pillow_do_not_get_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # it warns from here, and refuses from twice that
    assert levels_of(tmp_path, encoded(GREY), (1, 12, 20)).shape == (1, 12, 20)
    with pytest.raises(Image.DecompressionBombWarning), warnings.catch_warnings(action="error"):
        Image.open(tmp_path / "a.png")


def test_a_missing_pillow_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_folder(tmp_path, {"a.png": TREE["a.png"]})
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "has pictures, which only Pillow can decode.\nInstall it: pip install pillow" in refused(tmp_path)
