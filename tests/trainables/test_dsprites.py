import bisect
import cmath
import dataclasses
import hashlib
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from trainables.data import _cache, dsprites
from trainables.data._images import Images
from trainables.errors import InputError

CPU = torch.device("cpu")
REAL = Path(__file__).parents[3] / "shared/data/dsprites_real_12.npz"
OFFICIAL_ONES = 128_328_862


@pytest.fixture(scope="module")
def images() -> Images:
    """The set in the cache of whoever runs the tests: rendered by the first test run, in some seconds."""
    return dsprites.load(CPU)


def rendered(factors_N5: np.ndarray) -> np.ndarray:
    """Images rendered now, whatever the cache holds, (N, 64, 64)."""
    blocks = [dsprites._block(*sprite)[32 * x + y] for *sprite, x, y in factors_N5.tolist()]
    return np.unpackbits(np.stack(blocks), axis=1).reshape(-1, 64, 64)


def random_factors(num_images: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, dsprites.FACTOR_SIZES, (num_images, 5))


def is_inside(shape: int, point: complex) -> bool:
    """Whether a point, x right and y up, is in the sprite of scale 1 at angle 0, said another way."""
    if shape == 0:  # on the inner side of all four edges, each turned to the right in its turn
        return all((point * 1j**k).real <= 9.6 for k in range(4))
    if shape == 1:  # the gardener's ellipse
        focus = math.sqrt(12.77**2 - 7.21**2)
        return abs(point - focus) + abs(point + focus) <= 2 * 12.77
    angle_deg = abs(math.degrees(cmath.phase(point * 1j)))  # from "down", on either side
    angles, radii = zip(*dsprites.HEART_OUTLINE.tolist(), strict=True)
    k = min(bisect.bisect_right(angles, angle_deg), len(angles) - 1)
    share = (angle_deg - angles[k - 1]) / (angles[k] - angles[k - 1])
    return abs(point) <= (1 - share) * radii[k - 1] + share * radii[k]


def slow_image(shape: int, scale: int, orientation: int, pos_x: int, pos_y: int) -> list[list[bool]]:
    """The definition, a pixel at a time."""
    turned = cmath.exp(2j * math.pi * orientation / 39) * (0.5 + 0.1 * scale)
    center = complex(16 + 32 * pos_x / 31, -(16 + 32 * pos_y / 31))
    return [
        [is_inside(shape, (complex(j + 0.5, -(i + 0.5)) - center) / turned) for j in range(64)]
        for i in range(64)
    ]


def test_random_images_are_those_of_the_definition():
    factors_N5 = random_factors(60)
    for found, factors in zip(rendered(factors_N5), factors_N5.tolist(), strict=True):
        np.testing.assert_array_equal(found, slow_image(*factors))


def test_twelve_official_images_differ_in_three_pixels():
    if not REAL.exists():
        pytest.skip(f"no official images at {REAL}")
    with np.load(REAL, allow_pickle=False) as real:
        values_N6, official_NHW = real["latents_values"], real["imgs"]
    grids = [
        np.arange(1, 4),
        np.linspace(0.5, 1, 6),
        np.linspace(0, 2 * np.pi, 40),
        *[np.linspace(0, 1, 32)] * 2,
    ]
    factors = [np.abs(values_N6[:, [k + 1]] - grid).argmin(1) for k, grid in enumerate(grids)]
    assert (rendered(np.stack(factors, 1)) != official_NHW).sum() == 3


def test_a_mirrored_sprite_gives_the_mirrored_image():
    factors_N5 = random_factors(40)
    mirrored_N5 = factors_N5.copy()
    mirrored_N5[:, 2:4] = [39, 31] - factors_N5[:, 2:4]
    np.testing.assert_array_equal(rendered(mirrored_N5), rendered(factors_N5)[:, :, ::-1])


def test_the_last_orientation_is_the_first():
    for shape in range(3):
        np.testing.assert_array_equal(dsprites._block(shape, 4, 0), dsprites._block(shape, 4, 39))


def test_the_whole_set_is_the_grid_that_it_declares(images):
    assert (images.recipe, images.shape) == (dsprites.RECIPE, (1, 64, 64))
    assert images.factor_names == ("shape", "scale", "orientation", "pos_x", "pos_y")
    assert images.factor_sizes == (3, 6, 40, 32, 32)
    assert len(images) == 737_280
    rows_N = np.random.default_rng(1).integers(0, len(images), 100)
    found = images.at(torch.from_numpy(rows_N))[:, 0].numpy()
    np.testing.assert_array_equal(found, rendered(images.factors(rows_N)))


def test_the_cached_images_are_those_that_are_rendered_now(images):
    blocks_SNB = images.stored.numpy().reshape(720, 1024, 512)
    for k, sprite in enumerate(np.ndindex(3, 6, 40)):
        if k % 7 == 0:
            np.testing.assert_array_equal(dsprites._block(*sprite), blocks_SNB[k])


def test_the_whole_set_has_the_pinned_bits(images):
    packed_NB = images.stored.numpy()
    assert hashlib.sha256(packed_NB.data).hexdigest() == dsprites.SHA256
    ones = sum(int(np.bitwise_count(part).sum()) for part in np.array_split(packed_NB, 100))
    assert ones == 128_299_332
    assert ones == pytest.approx(OFFICIAL_ONES, rel=2.5e-4)


def test_the_images_are_mapped_from_the_file_and_not_copied(images):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list the mappings of a process")
    mapped = [
        line.split() for line in maps.read_text().splitlines() if line.endswith("/dsprites_rendered_v1.h5")
    ]
    ranges = [[int(end, 16) for end in fields[0].split("-")] for fields in mapped]
    assert any(start <= images.stored.data_ptr() < stop for start, stop in ranges)


# The cache, on a set of 5 images of 12 pixels.

TINY_ROWS = np.random.default_rng(3).integers(0, 256, (5, 2), dtype=np.uint8)
TINY_SHA256 = hashlib.sha256(TINY_ROWS.data).hexdigest()

PROCESS = f"""
import sys
import numpy as np
from trainables.data import _cache

def blocks():
    for row in {TINY_ROWS.tolist()}:
        yield np.array([row], dtype=np.uint8)
        print("rendering", flush=True)
        sys.stdin.readline()

rows = _cache.load(_cache.Rendering("tiny (v1)", (1, 3, 4), 5, "{TINY_SHA256}", blocks))
print(rows.tolist(), flush=True)
"""


def tiny_blocks() -> Iterator[np.ndarray]:
    yield TINY_ROWS[:3]
    yield TINY_ROWS[3:]


TINY = _cache.Rendering("tiny (v1)", (1, 3, 4), 5, TINY_SHA256, tiny_blocks)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def processes(cache) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that want the same set; while one renders it waits for its stdin after each image."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", PROCESS]
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(2)]
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_a_set_is_rendered_once_and_then_read(cache):
    np.testing.assert_array_equal(_cache.load(TINY), TINY_ROWS)
    written_ns = (cache / "tiny_v1.h5").stat().st_mtime_ns
    np.testing.assert_array_equal(_cache.load(TINY), TINY_ROWS)
    assert (cache / "tiny_v1.h5").stat().st_mtime_ns == written_ns
    assert sorted(p.name for p in cache.iterdir()) == ["tiny_v1.h5", "tiny_v1.lock", "tiny_v1.verified"]


def test_writing_to_loaded_images_changes_neither_the_file_nor_others(cache):
    mine, other = torch.from_numpy(_cache.load(TINY)), _cache.load(TINY)
    mine.fill_(7)
    np.testing.assert_array_equal(other, TINY_ROWS)
    np.testing.assert_array_equal(_cache.load(TINY), TINY_ROWS)


def test_of_two_processes_one_renders_and_the_other_waits(processes):
    # The first line of one is "Rendering", that of the other "Waiting"; only then may the first go on.
    said = {process.stderr.readline().split()[0]: process for process in processes}
    assert set(said) == {"Rendering", "Waiting"}
    rendered_out, rendered_err = said["Rendering"].communicate(timeout=60)
    waited_out, _ = said["Waiting"].communicate(timeout=60)
    assert rendered_out.splitlines() == ["rendering"] * 5 + [str(TINY_ROWS.tolist())]
    assert waited_out.splitlines() == [str(TINY_ROWS.tolist())]
    assert "100%" in rendered_err


def test_killing_a_process_that_renders_leaves_no_file_and_the_next_takes_over(processes, cache):
    said = {process.stderr.readline().split()[0]: process for process in processes}
    assert said["Rendering"].stdout.readline() == "rendering\n"
    assert (cache / "tiny_v1.partial").exists()
    assert not (cache / "tiny_v1.h5").exists()
    said["Rendering"].send_signal(signal.SIGKILL)
    out, err = said["Waiting"].communicate(timeout=60)
    assert out.splitlines() == ["rendering"] * 5 + [str(TINY_ROWS.tolist())]
    assert "Rendering" in err
    assert sorted(p.name for p in cache.iterdir()) == ["tiny_v1.h5", "tiny_v1.lock", "tiny_v1.verified"]


def test_a_machine_that_renders_other_bits_leaves_no_file(cache):
    other = dataclasses.replace(TINY, sha256="ab" * 32)
    with pytest.raises(InputError, match=rf"tiny \(v1\).*other bits[^$]*{TINY_SHA256[:12]}[^$]*abab"):
        _cache.load(other)
    assert [p.name for p in cache.iterdir()] == ["tiny_v1.lock"]


def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(cache):
    cache.write_text("a file, not a folder")
    with pytest.raises(InputError, match=rf"{cache}[^$]*Set SWEEPER_DATA"):
        _cache.load(TINY)


def test_a_full_disk_is_named_with_the_room_that_is_needed(cache):
    vast = dataclasses.replace(TINY, num_images=2**59)
    with pytest.raises(InputError, match=rf"{cache}.*No space[^$]*SWEEPER_DATA.* 1073741824.0 GiB"):
        _cache.load(vast)
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
    path: Path, rows: np.ndarray = TINY_ROWS, name: str = "images", chunks=None, **attributes
) -> None:
    with h5py.File(path, "w") as file:
        images = file.create_dataset(name, data=rows, chunks=chunks)
        images.attrs.update(TINY.attributes | attributes)


DAMAGES = {
    "is not a whole copy": truncate,
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
def test_a_damaged_or_foreign_file_is_refused_by_name(cache, said, damage):
    _cache.load(TINY)
    path = cache / "tiny_v1.h5"
    damage(path)
    with pytest.raises(InputError, match=said) as refusal:
        _cache.load(TINY)
    assert str(path) in str(refusal.value)
    assert "Delete it" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) <= 3
    path.unlink()
    np.testing.assert_array_equal(_cache.load(TINY), TINY_ROWS)


def test_a_copy_on_a_read_only_disk_is_read(cache, monkeypatch, tmp_path):
    _cache.load(TINY)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "tiny_v1.h5").write_bytes((cache / "tiny_v1.h5").read_bytes())
    (copy / "tiny_v1.verified").mkdir()  # no note can be written here, not even by root
    copy.chmod(0o500)
    monkeypatch.setenv("SWEEPER_DATA", str(copy))
    np.testing.assert_array_equal(_cache.load(TINY), TINY_ROWS)
    copy.chmod(0o700)
