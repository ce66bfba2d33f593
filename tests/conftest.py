"""What all tests share: a place for what is made once, fixed arithmetic, the small data set, a run trained in seconds."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trainables.locking import wait_for_lock

if TYPE_CHECKING:  # tests of the driver start without torch
    from sweeper.machines.probe import Probe
    from tests.sweeper.lent_probe import Lender
    from trainables.config import Value
    from trainables.engine import ResolvedRun
    from trainables.images import Images

# As in an activated environment, where `python` in a message is the interpreter that prints it.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

# NumPy's matrix products are small here: its threads would wait for each other, and take the time of the other test process.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A server and a cluster of the person who runs the tests are none of theirs.
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ["SWEEPER_ADDRESS"] = "local"

SMALL_VAE: dict[str, Value] = {
    "vae.network": "mlp",
    "vae.latent_dim": 6,
    "vae.width": 64,
    "adam.learning_rate": 1e-3,
}
SMALL: dict[str, dict[str, Value]] = {
    "beta_vae": SMALL_VAE,
    "factor_vae": SMALL_VAE
    | {
        "discriminator.width": 64,
        "discriminator.depth": 3,
        "discriminator.adam.learning_rate": 1e-3,
    },
    "info_wgan_gp": {
        "network": "mlp",
        "width": 64,
        "generator.noise_dim": 5,
        "critic.steps": 2,
        "critic.adam.learning_rate": 1e-3,
    },
}
"""Fields of a run of each model that is trained in seconds."""


LONGEST = (
    *("sweeper/test_recovery.py", "sweeper/machines/test_gpus.py", "test_wheel.py"),
    *("sweeper/test_ray_endings.py", "sweeper/test_pipeline.py"),
    *("sweeper/scheduling/test_in_process.py", "benchmarks/test_gpu.py", "sweeper/cli/test_endings.py"),
    *(
        "sweeper/tracking/test_moved.py",
        "sweeper/tracking/test_sync.py",
        "trainables/metrics/test_metrics.py",
    ),
    *("trainables/metrics/test_dci.py", "trainables/test_main.py", "trainables/models/test_models.py"),
    *(
        "sweeper/cli/test_cli.py",
        "trainables/metrics/test_elbo_decomposition.py",
        "sweeper/figures/test_paper.py",
    ),
)
"""Files of tests that are run first, so that two test processes end at about the same time."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first."""
    rank = {Path(__file__).parent / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


MakeOnce = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session", autouse=True)
def _signals_reach_what_is_started() -> None:
    """A signal that whoever started the tests ignores, as nohup does, is ignored here, but not by what tests start."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture(scope="session")
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """A function that returns a folder, filled by the first test process that asks for this name; not to be changed."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with (shared / f"{name}.lock").open("w") as lock:
            wait_for_lock(lock)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session", autouse=True)
def _data_folder(make_once: MakeOnce) -> None:
    """A SWEEPER_DATA of the tests: with the sets that were rendered for this user before, without this user's own images."""
    from trainables.data.readers import preparation

    def fill(folder: Path) -> None:
        for name in ("dsprites_rendered_v1", "shapes3d_lookalike_v1"):
            for suffix in (".h5", ".verified"):
                if (kept := preparation.folder() / f"{name}{suffix}").exists():
                    (folder / kept.name).symlink_to(kept)

    os.environ["SWEEPER_DATA"] = str(make_once("data", fill))


@pytest.fixture(scope="session")
def lender() -> Iterator[Lender]:
    """What lends one process that has torch to the commands of this one."""
    from tests.sweeper.lent_probe import Lender

    lender = Lender()
    yield lender
    lender.close()


@pytest.fixture(scope="module")
def probe(lender: Lender) -> Iterator[Probe]:
    """A process that has torch."""
    from sweeper.machines.probe import Probe

    with pytest.MonkeyPatch.context() as patch:
        lender.lend(patch)
        with Probe() as probe:
            yield probe


@pytest.fixture(scope="module")
def arithmetic() -> Iterator[None]:
    """One thread and flushed denormals, as the engine trains."""
    # Imported here so that tests of the driver start without torch.
    import torch

    from trainables import arithmetic

    before = torch.get_num_threads()
    arithmetic.set_arithmetic("fp32", 1)
    yield
    torch.set_num_threads(before)
    torch.set_flush_denormal(False)


@pytest.fixture
def set_threads(arithmetic: None) -> Iterator[Callable[[int], None]]:
    """A function that sets the number of threads until the test ends."""
    from trainables.arithmetic import set_arithmetic

    yield lambda num_threads: set_arithmetic("fp32", num_threads)
    set_arithmetic("fp32", 1)


@pytest.fixture
def double() -> Iterator[None]:
    """Float64 for tensors made without a type: the models compute in it, far below float32's rounding."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def sprites() -> Images:
    """The images of `sprites` on the CPU."""
    import torch

    from trainables.data import sprites

    return sprites.find().load(torch.device("cpu"))


@pytest.fixture(scope="session")
def small_run() -> Callable[..., ResolvedRun]:
    """A function that resolves a small run: model, seed, then fields other than the small ones."""
    from trainables import engine
    from trainables.config import RunSpec

    def resolve(
        model: str, seed: int = 0, fields: Mapping[str, Value] | None = None, data: str = "sprites"
    ) -> ResolvedRun:
        return engine.resolve(RunSpec(model, data, {**SMALL[model], **(fields or {})}, seed))

    return resolve


@pytest.fixture
def own_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that knows no files of its own, and forgets those that a test adds."""
    from trainables import plugins

    for name in ("_by_path", "_by_reference", "_current"):
        monkeypatch.setattr(plugins, name, {})


@pytest.fixture(scope="session")
def noise_images() -> Callable[..., Images]:
    """A function that makes 12 square images of noise, of so many channels, binary or in levels."""
    import numpy as np
    import torch

    from trainables.images import Source
    from trainables.pixels import Levels, Packed

    def make(channels: int, *, is_binary: bool, side: int = 64) -> Images:
        num_pixels, generator = channels * side * side, np.random.default_rng(0)
        size = (12, num_pixels // 8 if is_binary else num_pixels)
        stored = torch.from_numpy(generator.integers(0, 256, size, dtype=np.uint8))
        device = torch.device("cpu")
        pixels = Packed(stored, num_pixels) if is_binary else Levels(stored, 255, device)
        return Source("noise", (channels, side, side), len(stored), lambda _: pixels).load(device)

    return make
