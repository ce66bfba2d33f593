import contextlib
import io
import os
import pickle
import resource
import struct
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from trainables.data.readers import arrays as readers
from trainables.data.readers.arrays import open_arrays
from trainables.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 4, 3), dtype=np.uint8)
LABELS = np.random.default_rng(1).normal(size=(50, 6))


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez_compressed(path, allow_pickle=True, **arrays)
    return path


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def npy_header(text: str, magic: bytes = b"\x93NUMPY\x01\x00") -> bytes:
    return magic + struct.pack("<H" if magic[6] == 1 else "<I", len(text)) + text.encode()


def zipped(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names that are written twice
        for name, content in members:
            archive.writestr(name, content)
    return path


def patched(path: Path, old: bytes, new: bytes) -> Path:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))
    return path


def hdf5(path: Path, fill: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def whole(path: Path, name: str, first: int = 0, rows: int = 1024) -> np.ndarray:
    with open_arrays(path, [name]) as arrays:
        return np.concatenate(list(arrays[name].blocks(first, rows)))


def refused(path: Path, names: list[str] | None = None, max_bytes: int = 2**38) -> str:
    """What is said when an array is opened; nothing may be read for it."""
    with pytest.raises(InputError) as refusal, open_arrays(path, names or ["images"], max_bytes=max_bytes):
        pytest.fail("an array was returned")
    return checked(path, refusal)


def refused_at_reading(path: Path, rows: int = 8) -> str:
    # Some versions of Python see on opening what others see when they read.
    with pytest.raises(InputError) as refusal, open_arrays(path, ["images"]) as arrays:
        for _ in arrays["images"].blocks(0, rows):
            pass
    return checked(path, refusal)


def checked(path: Path, refusal: pytest.ExceptionInfo[InputError]) -> str:
    text = str(refusal.value)
    assert text.startswith(str(path))
    assert 2 <= len(text.splitlines()) <= 3
    assert text.isascii()
    return text


# What is read.


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("rows", [1, 7, 50, 1024])
def test_an_npz_array_is_what_numpy_loads(tmp_path: Path, save: Callable[..., None], rows: int) -> None:
    save(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    with (
        np.load(tmp_path / "a.npz") as loaded,
        open_arrays(tmp_path / "a.npz", ["images", "labels"]) as arrays,
    ):
        assert list(arrays) == ["images", "labels"]
        for name, array in arrays.items():
            assert (array.name, array.shape, array.dtype) == (name, loaded[name].shape, loaded[name].dtype)
            for first in (0, 1, 13, 49, 50, 60):
                blocks = list(array.blocks(first, rows))
                assert all(len(block) == rows for block in blocks[:-1])
                assert all(block.flags.c_contiguous and block.dtype == array.dtype for block in blocks)
                np.testing.assert_array_equal(
                    np.concatenate([loaded[name][:0], *blocks]), loaded[name][first:]
                )


CHUNKS = {"contiguous": None, "rows": (1, 4, 3), "official": (23, 2, 1), "whole": (50, 4, 3)}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
@pytest.mark.parametrize("rows", [1, 7, 46, 48, 1024])
def test_an_hdf5_array_is_what_h5py_reads(tmp_path: Path, chunks: tuple[int, ...] | None, rows: int) -> None:
    gzip = None if chunks is None else "gzip"
    path = hdf5(
        tmp_path / "a.h5",
        lambda file: file.create_dataset("set/images", data=IMAGES, chunks=chunks, compression=gzip),
    )
    with open_arrays(path, ["set/images"]) as arrays:
        array = arrays["set/images"]
        assert (array.name, array.shape, array.dtype) == ("set/images", IMAGES.shape, IMAGES.dtype)
        for first in (0, 1, 22, 23, 30, 49, 50, 60):
            blocks = list(array.blocks(first, rows))
            assert all(0 < len(block) <= rows and block.flags.c_contiguous for block in blocks)
            np.testing.assert_array_equal(np.concatenate([IMAGES[:0], *blocks]), IMAGES[first:])


@pytest.mark.parametrize("limit", ["high", "low"])
@pytest.mark.parametrize("rows", [1, 7, 23, 30, 46, 60])
def test_no_chunk_is_decompressed_twice_unless_its_rows_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, limit: str
) -> None:
    path = hdf5(tmp_path / "a.h5", lambda file: file.create_dataset("images", data=IMAGES, chunks=(23, 2, 1)))
    if limit == "low":
        monkeypatch.setattr(readers, "_MAX_READ_BYTES", 23 * 12 - 1)
    bands, read = [], h5py.Dataset.__getitem__

    def note(dataset: h5py.Dataset, rows_slice: slice) -> np.ndarray:
        bands.append((rows_slice.start, rows_slice.stop))
        rows: np.ndarray = read(dataset, rows_slice)
        return rows

    monkeypatch.setattr(h5py.Dataset, "__getitem__", note)
    whole(path, "images", 5, rows)
    touched = [chunk for start, stop in bands for chunk in range(start // 23, (stop - 1) // 23 + 1)]
    if limit == "high":
        assert touched == [0, 1, 2]
    else:
        assert all(stop - start <= rows for start, stop in bands)


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".bin", ""])
def test_the_kind_is_told_by_the_content_and_not_by_the_suffix(tmp_path: Path, suffix: str) -> None:
    zip_path, hdf5_path = tmp_path / f"z{suffix}", tmp_path / f"h{suffix}"
    zipped(zip_path, ("images.npy", npy(IMAGES)))
    hdf5(hdf5_path, lambda file: file.create_dataset("images", data=IMAGES))
    np.testing.assert_array_equal(whole(zip_path, "images"), IMAGES)
    np.testing.assert_array_equal(whole(hdf5_path, "images"), IMAGES)


@pytest.mark.parametrize("dtype", ["?", "u1", ">i4", "<i8", "f2", ">f4", "f8"])
def test_every_plain_number_is_read_with_its_byte_order(tmp_path: Path, dtype: str) -> None:
    values = np.arange(-6, 6).reshape(6, 2).astype(dtype)
    npz(tmp_path / "a.npz", x=values)
    hdf5(tmp_path / "a.h5", lambda file: file.create_dataset("x", data=values))
    for path in tmp_path.iterdir():
        with open_arrays(path, ["x"]) as arrays:
            (block,) = arrays["x"].blocks()
        assert arrays["x"].dtype == block.dtype == values.dtype
        np.testing.assert_array_equal(block, values)


def test_an_optional_name_is_left_out_where_it_is_missing(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", images=IMAGES)
    hdf5(tmp_path / "a.h5", lambda file: file.create_dataset("images", data=IMAGES))
    for path in tmp_path.iterdir():
        with open_arrays(path, ["images"], ["labels", "latents/classes", "images/0"]) as arrays:
            assert list(arrays) == ["images"]


def test_two_arrays_are_read_in_turns(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    with open_arrays(tmp_path / "a.npz", ["images", "labels"]) as arrays:
        pairs = zip(arrays["images"].blocks(0, 10), arrays["labels"].blocks(0, 10), strict=True)
        for k, (images, labels) in enumerate(pairs):
            np.testing.assert_array_equal(images, IMAGES[10 * k : 10 * k + 10])
            np.testing.assert_array_equal(labels, LABELS[10 * k : 10 * k + 10])


def test_a_member_of_more_than_one_piece_is_read_whole(tmp_path: Path) -> None:
    values = np.random.default_rng(2).integers(0, 9, (3, 1_000_003), dtype=np.uint8)
    np.testing.assert_array_equal(whole(npz(tmp_path / "a.npz", x=values), "x", 0, 2), values)


def test_a_header_that_python_2_wrote_is_read_without_a_warning(tmp_path: Path) -> None:
    header = npy_header("{'descr': '|u1', 'fortran_order': False, 'shape': (50L, 4L, 3L), }\n")
    path = zipped(tmp_path / "a.npz", ("images.npy", header + IMAGES.tobytes()))
    np.testing.assert_array_equal(whole(path, "images"), IMAGES)


def test_a_header_of_format_2_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", ("images.npy", npy(IMAGES, (2, 0))))
    np.testing.assert_array_equal(whole(path, "images"), IMAGES)


@settings(max_examples=60, deadline=None)
@given(
    values=arrays_of.arrays(np.int16, arrays_of.array_shapes(max_dims=4, max_side=9)),
    first=st.integers(0, 10),
    rows=st.integers(1, 11),
    height=st.integers(1, 9),
)
def test_blocks_put_together_are_the_array(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray, first: int, rows: int, height: int
) -> None:
    folder = tmp_path_factory.mktemp("blocks")
    npz(folder / "a.npz", x=values)
    chunks = (min(height, len(values)), *values.shape[1:])
    hdf5(folder / "a.h5", lambda file: file.create_dataset("x", data=values, chunks=chunks))
    for path in folder.iterdir():
        with open_arrays(path, ["x"]) as arrays:
            blocks = list(arrays["x"].blocks(first, rows))
        assert all(0 < len(block) <= rows for block in blocks)
        np.testing.assert_array_equal(np.concatenate([values[:0], *blocks]), values[first:])


def test_a_block_before_the_first_row_or_of_no_rows_is_an_error(tmp_path: Path) -> None:
    with open_arrays(npz(tmp_path / "a.npz", images=IMAGES), ["images"]) as arrays:
        for first, rows in ((-1, 1), (0, 0)):
            with pytest.raises(ValueError, match="at least"):
                arrays["images"].blocks(first, rows)


def test_reading_200_mb_takes_the_memory_of_a_block(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    header = npy_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': (200, {10**6})}}\n")
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("images.npy", "w") as member,
    ):
        member.write(header)
        for _ in range(200):
            member.write(bytes(10**6))
    tracemalloc.start()
    with open_arrays(path, ["images"]) as arrays:
        num_rows = sum(len(block) for block in arrays["images"].blocks(100, 20))
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_rows == 100
    assert peak < 48e6  # the block of 20 MB that the caller still has, the next one, and a piece on its way


def test_reading_200_mb_of_hdf5_takes_the_memory_of_a_block(tmp_path: Path) -> None:
    path = hdf5(
        tmp_path / "a.h5",
        lambda file: file.create_dataset(
            "images", (200, 10**6), np.uint8, chunks=(4, 10**6), compression="gzip"
        ),
    )
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open_arrays(path, ["images"]) as arrays:
        assert sum(len(block) for block in arrays["images"].blocks(0, 3)) == 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 60_000


# What is refused as a file.


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "is missing; expected an .npz or HDF5 file" in refused(tmp_path / "a.npz")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert "is a folder; expected" in refused(tmp_path)


def test_a_pipe_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    assert "is not a regular file" in refused(tmp_path / "a.npz")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").touch()
    assert "is empty" in refused(tmp_path / "a.npz")


FOREIGN = {
    b"\n  <!DOCTYPE html>\n<html>": [
        "begins with '<!DOCTYPE html>'",
        "A web page was saved",
        "Download it again",
    ],
    b"\xef\xbb\xbf<html>" + 60 * b"x": ["begins with '<html>xxx", "A web page was saved"],
    b"version https://git-lfs.github.com/spec/v1\n": ["is a pointer of Git LFS", "git lfs pull"],
    npy(IMAGES): [
        "is one array without a name (.npy); expected an .npz or HDF5 file",
        "np.savez('a.npz', images=np.load('a.npz'))",
    ],
    b"Rar!\x1a\x07": ["is a .rar archive", "Unpack it"],
    b"\x89PNG\r\n\x1a\n": ["is a single picture", "Give the folder that it is in"],
    b"hello": ["begins with 'hello'", "Text was saved instead of the data. Download it again."],
    b"   ": ["is not an .npz file"],
    b"P\x1b[2J": ["is not an .npz file"],
}


@pytest.mark.parametrize("content", FOREIGN)
def test_a_file_of_another_kind_is_refused_with_how_it_begins(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    text = refused(tmp_path / "a.npz")
    assert all(part in text for part in FOREIGN[content])
    assert r"\x" not in text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.h5", b"\x9f noise", "is not an HDF5 file.\nCheck the path, or download it again."),
        ("a.bin", b"\x9f noise", "is not an .npz or HDF5 file.\nCheck the path, or download it again."),
        ("a.txt", b"# notes", "begins with '# notes'; expected an .npz or HDF5 file.\nCheck the path."),
    ],
)
def test_what_a_file_is_said_not_to_be_depends_on_its_name(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert refused(tmp_path / name) == f"{tmp_path / name} {said}"


def test_a_zip_without_its_directory_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", images=IMAGES)
    os.truncate(path, path.stat().st_size // 2)
    text = f"{path} is truncated or damaged (File is not a zip file).\nDownload or copy it again."
    assert refused(path) == text


def test_a_file_that_may_not_be_read_is_not_said_to_be_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = npz(tmp_path / "a.npz", images=IMAGES)

    def deny(*_: object) -> None:  # root, as whom tests may run, may read everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", deny)
    assert refused(path) == f"{path} cannot be read (Permission denied).\nCheck its permissions."


def test_a_truncated_hdf5_file_is_refused(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", lambda file: file.create_dataset("images", data=IMAGES))
    os.truncate(path, path.stat().st_size - 10)
    assert "truncated" in refused(path)


def test_a_missing_name_is_refused_with_ten_of_those_that_are_there(tmp_path: Path) -> None:
    names = [f"a{k:02d}" for k in range(12)]
    npz(tmp_path / "a.npz", **dict.fromkeys(names, IMAGES))
    hdf5(tmp_path / "a.h5", lambda file: [file.create_dataset(f"set/{name}", data=IMAGES) for name in names])
    for path, prefix in ((tmp_path / "a.npz", ""), (tmp_path / "a.h5", "set/")):
        text = refused(path)
        assert f"has no array 'images'; it has '{prefix}a00'" in text
        assert f"'{prefix}a09', ..." in text
        assert "a10" not in text


def test_the_names_of_all_arrays_are_told(tmp_path: Path) -> None:
    zipped(tmp_path / "a.npz", ("b.npy", npy(IMAGES)), ("notes.txt", b"x"), ("a.npy", npy(IMAGES)))
    hdf5(tmp_path / "a.h5", lambda file: [file.create_dataset(name, data=1) for name in ("b", "set/a")])
    assert readers.array_names(tmp_path / "a.npz") == ["b", "a"]
    assert readers.array_names(tmp_path / "a.h5") == ["b", "set/a"]


def test_an_archive_with_nothing_in_it_is_said_to_have_nothing(tmp_path: Path) -> None:
    assert "it has nothing" in refused(zipped(tmp_path / "a.npz"))
    assert "it has nothing" in refused(hdf5(tmp_path / "a.h5", lambda file: file.create_group("images2")))


def test_names_out_of_a_file_are_shown_escaped_and_short(tmp_path: Path) -> None:
    text = refused(zipped(tmp_path / "a.npz", ("\x1b[2J\n\xe9" + 500 * "x", b"")))
    assert r"'\x1b[2J\n\xe9xxx" in text
    assert 100 * "x" not in text


# What is refused of an .npz array.


class Payload:
    """Creates a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickled_objects_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    path = npz(tmp_path / "a.npz", images=np.array([Payload(harm)], dtype=object), labels=LABELS)
    assert "holds objects, which are never unpickled" in refused(path)
    assert not harm.exists()
    np.testing.assert_array_equal(whole(path, "labels"), LABELS)  # what is not asked for does not matter
    assert not harm.exists()
    with np.load(path, allow_pickle=True) as loaded:  # the payload works
        assert loaded["images"] is not None
    assert harm.exists()


def test_a_bare_pickle_in_place_of_an_array_is_refused_and_never_unpickled(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    path = zipped(tmp_path / "a.npz", ("images.npy", pickle.dumps(Payload(harm))))
    assert "magic string is not correct" in refused(path)
    assert not harm.exists()


def test_an_array_in_fortran_order_is_refused(tmp_path: Path) -> None:
    assert "in Fortran order" in refused(npz(tmp_path / "a.npz", images=np.asfortranarray(IMAGES)))


@pytest.mark.parametrize(
    ("what", "values"),
    [
        ("records of several fields", np.zeros(3, dtype=[("a", "u1"), ("b", "f4")])),
        ("text", np.array(["a", "bc"])),
        ("text", np.array([b"a", b"bc"])),
        ("complex numbers", np.zeros(3, dtype=complex)),
        ("dates", np.zeros(3, dtype="M8[s]")),
        ("durations", np.zeros(3, dtype="m8[s]")),
    ],
)
def test_what_is_no_plain_number_is_refused(tmp_path: Path, what: str, values: np.ndarray) -> None:
    said = f"'images' holds {what}; expected numbers.\n"
    assert said in refused(npz(tmp_path / "a.npz", images=values))
    if values.dtype.kind not in "UMm":
        path = hdf5(tmp_path / "a.h5", lambda file: file.create_dataset("images", data=values))
        assert said in refused(path)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (2**60, 0)])
def test_an_array_without_rows_or_values_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    said = (
        "has shape (); expected rows." if shape == () else f"is empty: its shape is {shape}.\nSave at least 2"
    )
    header = npy_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n")
    path = zipped(tmp_path / "a.npz", ("images.npy", header + bytes(shape == ())))
    assert said in refused(path)
    path = hdf5(tmp_path / "a.h5", lambda file: file.create_dataset("images", shape, "u1"))
    assert said in refused(path)


HEADERS = {
    "too many values": ("(51, 4, 3)", "has 672 bytes; expected 684 for uint8 (51, 4, 3)"),
    "too few values": ("(49, 4, 3)", "has 672 bytes; expected 660 for"),
    "a vast claim": ("(2**40,)", "is truncated or damaged"),
    "vast": ("(1099511627776, 4, 3)", "expected 13194139533"),
    "negative": ("(-50, -4, 3)", "has shape (-50, -4, 3)"),
    "overflow": (f"({2**62}, 4, 300)", "has 691 bytes; expected 5534023222112865484891 for"),
    "no number": ("(None, 3)", "is truncated or damaged"),
    "code": ("(__import__('os').system('true'), 3)", "is truncated or damaged"),
    "deep": (f"({'(' * 5000},", "is truncated or damaged"),
    "long number": (f"({'9' * 5000},)", "is truncated or damaged"),
}


@pytest.mark.parametrize(("shape", "said"), HEADERS.values(), ids=HEADERS)
def test_a_header_that_lies_is_refused(tmp_path: Path, shape: str, said: str) -> None:
    header = npy_header(f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}\n")
    assert said in refused(zipped(tmp_path / "a.npz", ("images.npy", header + IMAGES.tobytes())))


def test_a_declared_size_that_is_not_that_of_the_header_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", ("images.npy", npy(IMAGES)))
    size = len(npy(IMAGES))
    patched(path, struct.pack("<I", size), struct.pack("<I", size + 2**20))
    assert f"has {size + 2**20} bytes; expected {size}" in refused(path)


@pytest.mark.parametrize("magic", [b"\x93NUMPY\x02\x00", b"\x93NUMPY\x03\x00", b"\x93NUMPY\x09\x00"])
def test_a_vast_header_or_another_format_is_refused_before_it_is_read(tmp_path: Path, magic: bytes) -> None:
    header = (
        magic
        + struct.pack("<I", 2**16 + 1)
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (50, 4, 3)}"
    )
    text = refused(zipped(tmp_path / "a.npz", ("images.npy", header.ljust(2**17) + IMAGES.tobytes())))
    assert ("header of 65537 bytes" if magic[6] == 2 else f"format ({magic[6]}, 0)") in text


def test_an_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", ("images.npy", npy(IMAGES)))
    content = bytearray(path.read_bytes())
    for at in (6, content.index(b"PK\x01\x02") + 8):  # the flags, in front of the member and in the directory
        content[at] |= 1
    path.write_bytes(content)
    assert "without a password" in refused(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_rare_compression_is_refused(tmp_path: Path, method: int) -> None:
    path = zipped(tmp_path / "a.npz", ("images.npy", npy(IMAGES)), method=method)
    assert f"zip method {method}" in refused(path)


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", ("images.npy", npy(IMAGES)), ("images.npy", npy(IMAGES + 1)))
    assert "two members 'images.npy'" in refused(path)


def test_more_than_the_limit_is_refused_for_what_is_asked_for_only(tmp_path: Path) -> None:
    npz(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    hdf5(
        tmp_path / "a.h5",
        lambda file: [file.create_dataset(n, data=x) for n, x in (("images", IMAGES), ("labels", LABELS))],
    )
    for path in tmp_path.iterdir():
        with open_arrays(path, ["images"], max_bytes=IMAGES.nbytes) as arrays:
            assert list(arrays) == ["images"]
        assert "GiB" in refused(path, max_bytes=IMAGES.nbytes - 1)
        assert "in 'labels'" in refused(path, ["labels"], max_bytes=LABELS.nbytes - 1)
        assert "in 'images', 'labels'" in refused(path, ["images", "labels"], max_bytes=LABELS.nbytes)


def test_a_vast_hdf5_array_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    path = hdf5(
        tmp_path / "a.h5", lambda file: file.create_dataset("images", (2**40,), np.uint8, chunks=(2**16,))
    )
    assert "declares 1.02e+03 GiB" in refused(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_whose_data_end_early_is_refused_at_reading(tmp_path: Path, method: int) -> None:
    """The directory is whole, but the member's bytes are fewer than the 668 that it and the header declare."""
    path = zipped(tmp_path / "a.npz", ("images.npy", npy(IMAGES)[:300]), method=method)
    patched(path, struct.pack("<I", 300), struct.pack("<I", 728))
    assert "is truncated or damaged" in refused_at_reading(path)


def test_a_flipped_bit_is_refused_at_reading(tmp_path: Path) -> None:
    images = np.tile(IMAGES, (20, 1, 1))  # of a small member all is read with its header
    path = zipped(tmp_path / "a.npz", ("images.npy", npy(images)), method=zipfile.ZIP_STORED)
    patched(path, IMAGES[9].tobytes(), (IMAGES[9] ^ 4).tobytes())
    assert "Bad CRC-32" in refused_at_reading(path)


def test_an_error_of_the_reader_is_not_said_to_be_one_of_the_file(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", images=IMAGES)

    def read() -> None:
        with open_arrays(path, ["images"]) as arrays:
            for _ in arrays["images"].blocks():
                raise OSError("mine")

    with pytest.raises(OSError, match="mine"):
        read()


@settings(max_examples=80, deadline=None)
@given(at=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255), is_deflated=st.booleans())
def test_damage_anywhere_in_an_npz_is_refused_or_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, at: float, bits: int, is_deflated: bool
) -> None:
    method = zipfile.ZIP_DEFLATED if is_deflated else zipfile.ZIP_STORED
    path = zipped(tmp_path_factory.mktemp("npz") / "a.npz", ("images.npy", npy(IMAGES)), method=method)
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= bits
    path.write_bytes(content)
    with contextlib.suppress(InputError):
        np.testing.assert_array_equal(whole(path, "images"), IMAGES)


# What is refused of an HDF5 array.


@pytest.mark.parametrize("target", ["/real", "/nowhere"])
def test_a_soft_link_is_refused(tmp_path: Path, target: str) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("real/images", data=IMAGES)
        file["images"] = h5py.SoftLink(f"{target}/images")
        file["set"] = h5py.SoftLink(target)

    path = hdf5(tmp_path / "a.h5", fill)
    assert "is behind 'images', a soft or external link" in refused(path)
    assert "is behind 'set', a soft or external link" in refused(path, ["set/images"])


def test_a_file_that_an_external_link_names_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")  # opening it would wait for ever

    def fill(file: h5py.File) -> None:
        file["images"] = h5py.ExternalLink(str(tmp_path / "pipe.h5"), "images")
        file["set"] = h5py.ExternalLink(str(tmp_path / "pipe.h5"), "/")

    path = hdf5(tmp_path / "a.h5", fill)
    assert "is behind 'images', a soft or external link" in refused(path)
    assert "is behind 'set', a soft or external link" in refused(path, ["set/images"])
    assert "it has nothing" in refused(path, ["labels"])


def test_a_virtual_array_is_refused(tmp_path: Path) -> None:
    hdf5(tmp_path / "other.h5", lambda file: file.create_dataset("images", data=IMAGES))
    layout = h5py.VirtualLayout(IMAGES.shape, IMAGES.dtype)
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "images", IMAGES.shape)
    path = hdf5(tmp_path / "a.h5", lambda file: file.create_virtual_dataset("images", layout))
    assert "is virtual" in refused(path)


def test_an_array_that_is_stored_outside_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(IMAGES.tobytes())
    path = hdf5(
        tmp_path / "a.h5",
        lambda file: file.create_dataset(
            "images", IMAGES.shape, "u1", external=[(str(raw), 0, IMAGES.nbytes)]
        ),
    )
    assert "is external" in refused(path)


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.create_group("images")
        file["kind"] = np.dtype("f4")

    path = hdf5(tmp_path / "a.h5", fill)
    assert "is a group; expected a dataset" in refused(path)
    assert "is a datatype; expected a dataset" in refused(path, ["kind"])


@pytest.mark.parametrize(
    ("dtype", "what"),
    [
        (h5py.vlen_dtype(np.uint8), "objects, which are never unpickled"),
        (h5py.string_dtype(), "text"),
        (h5py.ref_dtype, "objects"),
    ],
)
def test_values_of_no_fixed_size_are_refused(tmp_path: Path, dtype: np.dtype, what: str) -> None:
    path = hdf5(tmp_path / "a.h5", lambda file: file.create_dataset("images", (3,), dtype))
    assert f"holds {what}" in refused(path)


def test_an_array_without_a_space_is_refused(tmp_path: Path) -> None:
    path = hdf5(tmp_path / "a.h5", lambda file: file.create_dataset("images", data=h5py.Empty("u1")))
    assert "has shape (); expected rows" in refused(path)


def test_a_filter_that_is_not_installed_is_refused(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((10, 4, 3))
        properties.set_filter(307, h5py.h5z.FLAG_OPTIONAL, ())  # bzip2
        space = h5py.h5s.create_simple(IMAGES.shape)
        h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_UINT8, space, properties)

    if h5py.h5z.filter_avail(307):
        pytest.skip("HDF5's bzip2 filter is installed here")
    assert "HDF5 filter 307, which is not installed" in refused(hdf5(tmp_path / "a.h5", fill))


def test_a_chunk_that_is_too_large_to_be_read_whole_is_refused(tmp_path: Path) -> None:
    path = hdf5(
        tmp_path / "a.h5",
        lambda file: file.create_dataset("images", (2, 2**30), np.uint8, chunks=(1, 2**29 + 1)),
    )
    assert "has chunks of 512 MiB, each read whole" in refused(path)


def test_a_damaged_chunk_is_refused_at_reading(tmp_path: Path) -> None:
    path = hdf5(
        tmp_path / "a.h5",
        lambda file: file.create_dataset("images", data=IMAGES, chunks=(10, 4, 3), compression="gzip"),
    )
    with h5py.File(path) as file:
        chunk = file["images"].id.get_chunk_info(3)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    path.write_bytes(content)
    assert "'images' is truncated or damaged" in refused_at_reading(path)
