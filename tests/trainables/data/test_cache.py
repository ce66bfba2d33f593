import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import h5py
import numpy as np
import pytest
import torch

from trainables.data.readers import cache as image_cache
from trainables.data.readers.preparation import Preparation
from trainables.errors import InputError

TINY_ROWS = np.random.default_rng(3).integers(0, 256, (5, 2), dtype=np.uint8)
TINY_SHA256 = hashlib.sha256(TINY_ROWS.data).hexdigest()

PROCESS = f"""
import sys
import numpy as np
from trainables.data.readers import cache as image_cache
from trainables.data.readers.preparation import Preparation

def blocks(first):
    for row in {TINY_ROWS.tolist()}:
        yield np.array([row], dtype=np.uint8)
        print("rendering", flush=True)
        sys.stdin.readline()

rows = image_cache.load(Preparation("tiny (v1)", (1, 3, 4), 5, blocks, "{TINY_SHA256}"))
print(rows.tolist(), flush=True)
"""


def tiny_blocks(first: int) -> Iterator[np.ndarray]:
    for start, stop in [(0, 3), (3, 5)]:
        if first <= start:
            yield TINY_ROWS[start:stop]


TINY = Preparation("tiny (v1)", (1, 3, 4), 5, tiny_blocks, TINY_SHA256)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def processes(cache: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that want the same set; while one renders it waits for its stdin after each image."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", PROCESS]
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    yield started
    for process in started:
        process.kill()
        process.communicate()


def next_line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


def test_a_set_is_rendered_once_and_then_read(cache: Path) -> None:
    np.testing.assert_array_equal(image_cache.load(TINY), TINY_ROWS)
    written_ns = (cache / "tiny_v1.h5").stat().st_mtime_ns
    np.testing.assert_array_equal(image_cache.load(TINY), TINY_ROWS)
    assert (cache / "tiny_v1.h5").stat().st_mtime_ns == written_ns
    assert sorted(p.name for p in cache.iterdir()) == ["tiny_v1.h5", "tiny_v1.lock", "tiny_v1.verified"]


def test_writing_to_loaded_images_changes_neither_the_file_nor_others(cache: Path) -> None:
    mine, other = torch.from_numpy(image_cache.load(TINY)), image_cache.load(TINY)
    mine.fill_(7)
    np.testing.assert_array_equal(other, TINY_ROWS)
    np.testing.assert_array_equal(image_cache.load(TINY), TINY_ROWS)


def test_of_two_processes_one_renders_and_the_other_waits(processes: list[subprocess.Popen[str]]) -> None:
    # The first line of one is "Rendering", that of the other "Waiting"; only then may the first go on.
    said = {next_line(process.stderr).split()[0]: process for process in processes}
    assert set(said) == {"Rendering", "Waiting"}
    rendered_out, rendered_err = said["Rendering"].communicate(timeout=60)
    waited_out, _ = said["Waiting"].communicate(timeout=60)
    assert rendered_out.splitlines() == ["rendering"] * 5 + [str(TINY_ROWS.tolist())]
    assert waited_out.splitlines() == [str(TINY_ROWS.tolist())]
    assert "100%" in rendered_err


def test_killing_a_process_that_renders_leaves_no_file_and_the_next_takes_over(
    processes: list[subprocess.Popen[str]], cache: Path
) -> None:
    said = {next_line(process.stderr).split()[0]: process for process in processes}
    assert next_line(said["Rendering"].stdout) == "rendering\n"
    assert (cache / "tiny_v1.partial").exists()
    assert not (cache / "tiny_v1.h5").exists()
    said["Rendering"].send_signal(signal.SIGKILL)
    out, err = said["Waiting"].communicate(timeout=60)
    assert out.splitlines() == ["rendering"] * 5 + [str(TINY_ROWS.tolist())]
    assert "Rendering" in err
    assert sorted(p.name for p in cache.iterdir()) == ["tiny_v1.h5", "tiny_v1.lock", "tiny_v1.verified"]


def test_a_machine_that_renders_other_bits_leaves_no_file(cache: Path) -> None:
    other = dataclasses.replace(TINY, sha256="ab" * 32)
    with pytest.raises(InputError, match=rf"tiny \(v1\).*different bits[^$]*{TINY_SHA256[:12]}[^$]*abab"):
        image_cache.load(other)
    assert [p.name for p in cache.iterdir()] == ["tiny_v1.lock"]


def test_a_file_in_the_place_of_the_folder_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.write_text("a file, not a folder")
    with pytest.raises(InputError) as refusal:
        image_cache.load(TINY)
    remedy = "Set it to a folder on a local disk."
    assert str(refusal.value) == f"SWEEPER_DATA={cache}: is a file; expected a folder.\n{remedy}"
    monkeypatch.setenv("SWEEPER_DATA", str(cache / "deeper"))
    with pytest.raises(
        InputError, match=rf"SWEEPER_DATA={cache}/deeper: {cache} is a file; expected a folder"
    ):
        image_cache.load(TINY)


def test_a_folder_that_may_not_be_written_to_is_named_in_words_with_the_remedy(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object, **__: object) -> None:  # root, as whom tests may run, may write everywhere
        raise PermissionError(13, "Permission denied", str(cache))

    monkeypatch.setattr(Path, "mkdir", deny)
    with pytest.raises(InputError) as refusal:
        image_cache.load(TINY)
    remedy = "Set SWEEPER_DATA to a folder on a local disk with 1 MiB free."
    assert str(refusal.value) == f"Cannot store tiny (v1) in {cache}: Permission denied.\n{remedy}"


def test_a_full_disk_is_named_with_the_room_that_is_needed(cache: Path) -> None:
    vast = dataclasses.replace(TINY, num_images=2**59)
    with pytest.raises(InputError, match=rf"{cache}.*No space[^$]*SWEEPER_DATA.* 1.07e.09 GiB"):
        image_cache.load(vast)
    assert [p.name for p in cache.iterdir()] == ["tiny_v1.lock"]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 3)


def flip_a_bit(path: Path) -> None:
    with h5py.File(path) as file:
        offset = file["images"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset + 4] ^= 16
    path.write_bytes(content)


def replace_by_text(path: Path) -> None:
    path.write_text("not found")


def rewrite(
    path: Path,
    rows: np.ndarray = TINY_ROWS,
    name: str = "images",
    chunks: tuple[int, ...] | None = None,
    **attributes: object,
) -> None:
    with h5py.File(path, "w") as file:
        images = file.create_dataset(name, data=rows, chunks=chunks)
        images.attrs.update(TINY.attributes | {"sha256": TINY_SHA256} | attributes)


DAMAGES = {
    "is not a complete copy": truncate,
    "images are damaged": flip_a_bit,
    "signature not found": replace_by_text,
    "its recipe is tiny .v2.": lambda path: rewrite(path, recipe="tiny (v2)"),
    "its sha256 is": lambda path: rewrite(path, sha256="ab" * 32),
    "its shape is": lambda path: rewrite(path, shape=(1, 4, 3)),
    "no uint8 dataset 'images' of": lambda path: rewrite(path, TINY_ROWS[:4]),
    "no uint8 dataset 'images'": lambda path: rewrite(path, TINY_ROWS.astype(np.int8)),
    "no uint8 dataset": lambda path: rewrite(path, name="imgs"),
    "not contiguous": lambda path: rewrite(path, chunks=(1, 2)),
}


@pytest.mark.parametrize(("said", "damage"), DAMAGES.items())
def test_a_damaged_or_foreign_file_is_refused_by_name(
    cache: Path, said: str, damage: Callable[[Path], None]
) -> None:
    image_cache.load(TINY)
    path = cache / "tiny_v1.h5"
    damage(path)
    with pytest.raises(InputError, match=said) as refusal:
        image_cache.load(TINY)
    assert str(path) in str(refusal.value)
    assert "Delete it" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) <= 3
    path.unlink()
    np.testing.assert_array_equal(image_cache.load(TINY), TINY_ROWS)


def test_a_copy_on_a_read_only_disk_is_read(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    image_cache.load(TINY)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "tiny_v1.h5").write_bytes((cache / "tiny_v1.h5").read_bytes())
    (copy / "tiny_v1.verified").mkdir()  # no note can be written here, not even by root
    copy.chmod(0o500)
    monkeypatch.setenv("SWEEPER_DATA", str(copy))
    np.testing.assert_array_equal(image_cache.load(TINY), TINY_ROWS)
    copy.chmod(0o700)


def stop_after_a_block(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave what an interrupted preparation leaves when its first block, of 3 images, was noted."""
    monkeypatch.setattr(image_cache, "NOTE_EVERY_S", -1.0)

    def blocks(first: int) -> Iterator[np.ndarray]:
        yield next(tiny_blocks(first))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        image_cache.load(dataclasses.replace(TINY, blocks=blocks))
    assert (cache / "tiny_v1.partial").exists()
    assert not (cache / "tiny_v1.h5").exists()


def test_what_was_interrupted_goes_on_where_it_was_noted(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after_a_block(cache, monkeypatch)
    asked = []

    def blocks(first: int) -> Iterator[np.ndarray]:
        asked.append(first)
        yield from tiny_blocks(first)

    np.testing.assert_array_equal(image_cache.load(dataclasses.replace(TINY, blocks=blocks)), TINY_ROWS)
    assert asked == [3]
    assert sorted(p.name for p in cache.iterdir()) == ["tiny_v1.h5", "tiny_v1.lock", "tiny_v1.verified"]


@pytest.mark.parametrize("changed", ["origin", "note", "partial"])
def test_what_was_interrupted_starts_over_where_it_is_no_more_what_it_was(
    cache: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    stop_after_a_block(cache, monkeypatch)
    asked = []

    def blocks(first: int) -> Iterator[np.ndarray]:
        asked.append(first)
        yield from tiny_blocks(first)

    again = dataclasses.replace(TINY, blocks=blocks)
    if changed == "origin":
        again = dataclasses.replace(again, origin="another file")
    elif changed == "note":
        (cache / "tiny_v1.progress").write_text("{}")
    else:
        os.truncate(cache / "tiny_v1.partial", 100)
    np.testing.assert_array_equal(image_cache.load(again), TINY_ROWS)
    assert asked == [0]


def test_an_old_note_is_not_believed_of_a_new_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after_a_block(cache, monkeypatch)
    (cache / "tiny_v1.partial").unlink()
    monkeypatch.setattr(image_cache, "NOTE_EVERY_S", 5.0)

    def blocks(first: int) -> Iterator[np.ndarray]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        image_cache.load(dataclasses.replace(TINY, sha256=None, blocks=blocks))
    np.testing.assert_array_equal(image_cache.load(dataclasses.replace(TINY, sha256=None)), TINY_ROWS)


def test_images_that_are_found_wrong_leave_nothing_to_go_on_from(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "NOTE_EVERY_S", -1.0)

    def wrong(first: int) -> Iterator[np.ndarray]:
        yield next(tiny_blocks(first))
        raise InputError("image 4 is a cat")

    def check(stored_NB: np.ndarray) -> None:
        assert stored_NB.shape == (5, 2)
        raise InputError("they are all cats")

    for odd, said in (
        (dataclasses.replace(TINY, blocks=wrong), "image 4 is a cat"),
        (dataclasses.replace(TINY, check=check), "they are all cats"),
    ):
        with pytest.raises(InputError, match=said):
            image_cache.load(odd)
        assert [p.name for p in cache.iterdir()] == ["tiny_v1.lock"]


def test_fewer_images_than_there_should_be_are_a_bug(cache: Path) -> None:
    with pytest.raises(ValueError, match="got 3 images; expected 5"):
        image_cache.load(dataclasses.replace(TINY, blocks=lambda _: iter([TINY_ROWS[:3]])))


def test_images_whose_bits_are_not_known_beforehand_are_checked_against_those_that_came(cache: Path) -> None:
    unknown = dataclasses.replace(TINY, sha256=None)
    assert image_cache.prepare(unknown) == TINY_SHA256
    np.testing.assert_array_equal(image_cache.load(unknown), TINY_ROWS)
    (cache / "tiny_v1.verified").unlink()
    flip_a_bit(cache / "tiny_v1.h5")
    with pytest.raises(InputError, match="images are damaged"):
        image_cache.load(unknown)
