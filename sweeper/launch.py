"""Train packs by a fresh Ray Tune experiment, as many at once as the machine holds.

Tune's own state is never read again: what is true is in the storage and the ledger, so its folder is scratch.
"""

import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.ledger import Ledger
from sweeper.packing import PackPlan
from sweeper.rows import StoredSlice
from trainables import blocks
from trainables.errors import InputError

if TYPE_CHECKING:
    from sweeper.pack_queue import StopEarly

# Read by Ray when it is imported or started, so they are set before.
_ENVIRONMENT = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


@dataclass(frozen=True)
class Machine:
    """Where packs train.

    Attributes:
        address: A running cluster, None for this machine alone.
        gpus_per_pack: Share of a GPU that a pack takes, 1 / k or a whole number; 0 for CPU packs.
        threads: CPU threads of a pack.
    """

    address: str | None
    gpus_per_pack: float
    threads: int = 1


MAX_PACKS_PER_GPU = 100

EXPECTED_GPUS = 4
"""Of a cluster that shows none yet; packs are formed for so many, and wait until they come."""

ANSWER_S = 3.0
"""How long a cluster has to answer."""

Progress = Callable[[int], None]
"""Told how many more run-steps were committed."""


def check_share(share: float) -> None:
    """Accept a GPU share that divides a GPU without remainder.

    Raises:
        InputError: It does not; the message offers the nearest that do.
    """
    is_part = 0 < share < 1 / MAX_PACKS_PER_GPU
    if not math.isfinite(share) or share < 0 or is_part or (share > 1 and share != int(share)):
        raise InputError(
            f"--gpus-per-pack {share:g}: valid are 0, 1/k of a GPU (0.5, 0.333, 0.25 ...) or whole GPUs."
        )
    if 0 < share <= 1:
        k = round(1 / share)
        if abs(share - 1 / k) > 1e-3:
            below, above = int(1 / share) + 1, int(1 / share)
            raise InputError(
                f"--gpus-per-pack {share:g} leaves a part of every GPU idle.\n"
                f"Use 1/k: {1 / below:.3g} ({below} packs a GPU) or {1 / above:.3g} ({above} packs a GPU)."
            )


def check_address(address: str | None) -> None:
    """Accept the address of something that answers; Ray itself would try for minutes.

    Raises:
        InputError: It is none, or nobody answers there.
    """
    if address in (None, "auto"):
        return
    host, _, port = str(address).removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except (OSError, ValueError, OverflowError):
        raise InputError(
            f"--address {address}: no Ray cluster answers there; valid are auto, HOST:PORT and ray://HOST:PORT.\n"
            "Start one with `ray start --head`, or leave --address out."
        ) from None


@contextmanager
def cluster(machine: Machine) -> Iterator[int]:
    """Start Ray here, or join a running cluster; yields how many packs it holds at once.

    Raises:
        InputError: The cluster cannot be reached, or has no GPU where one is asked for.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if machine.address is None:
        options |= {"include_dashboard": False, "num_cpus": os.cpu_count()}
    try:
        # Not None, which would join whatever cluster was started on this machine, or RAY_ADDRESS.
        ray.init(address=machine.address or "local", **options)
    except ConnectionError as error:
        raise InputError(
            f"--address {machine.address}: no Ray cluster answers there ({error}).\n"
            "Start one with `ray start --head`, or leave --address out."
        ) from None
    try:
        yield _num_slots(ray.cluster_resources(), machine)
    finally:
        ray.shutdown()


def local_slots(machine: Machine) -> int:
    """How many packs this machine holds at once, without starting Ray.

    Raises:
        InputError: A GPU is asked for and there is none.
    """
    return _num_slots({"CPU": os.cpu_count() or 1, "GPU": _num_local_gpus()}, machine)


def _num_local_gpus() -> int:
    """GPUs that the driver of this machine lists; torch would say, but takes seconds to import."""
    if not shutil.which("nvidia-smi"):
        return 0
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def _num_slots(resources: dict[str, float], machine: Machine) -> int:
    by_cpu = int(resources.get("CPU", 0) / machine.threads)
    if not machine.gpus_per_pack:
        return max(1, by_cpu)
    gpus = resources.get("GPU", 0)
    if not gpus and machine.address is None:
        raise InputError(
            "--gpus-per-pack: this machine has no GPU.\nLeave it out, or name a cluster with --address."
        )
    # An autoscaled cluster has no GPU before the first pack asks for one.
    gpus = gpus or EXPECTED_GPUS
    per_gpu = round(1 / machine.gpus_per_pack) if machine.gpus_per_pack <= 1 else 1 / machine.gpus_per_pack
    return max(1, int(gpus * per_gpu))


def train(
    ledger: Ledger, packs: Sequence[PackPlan], machine: Machine, num_slots: int, progress: Progress
) -> None:
    """Train packs to their horizon; returns when each has ended or was given up.

    Raises:
        OSError: The ledger or the storage could not be written; running packs were stopped.
        KeyboardInterrupt: The user asked to stop; what is committed stays.
    """
    from ray import tune

    from sweeper.pack_queue import BlockListener, PackQueue, StopEarly
    from trainables.tune import PackTrainable

    dispatch = _Dispatch(ledger, machine, progress)
    queue = PackQueue(packs, dispatch.begin, dispatch.give_up, dispatch.end)
    stop = StopEarly(queue)
    scratch = tempfile.mkdtemp(prefix="sweeper-tune-")
    share = _exact(machine.gpus_per_pack)
    tuner = tune.Tuner(
        tune.with_resources(PackTrainable, {"cpu": machine.threads, "gpu": share}),
        tune_config=tune.TuneConfig(
            search_alg=queue, num_samples=-1, max_concurrent_trials=num_slots, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="packs",
            storage_path=scratch,
            callbacks=[BlockListener(queue, dispatch.take)],
            stop=stop,
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    # Failures are recorded and shown by us; Tune would print each traceback twice.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        with _stop_on_signals(stop):
            tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        dispatch.close()
    if queue.error:
        raise queue.error
    if stop.is_asked:
        raise KeyboardInterrupt


def _exact(share: float) -> float:
    """1 / k as Ray counts it, in ten-thousandths rounded down, so that k of them fit."""
    return share if share in (0, 1) or share > 1 else int(10_000 / round(1 / share)) / 10_000


class _Dispatch:
    """Begins and ends attempts in the ledger as packs come and go."""

    def __init__(self, ledger: Ledger, machine: Machine, progress: Progress) -> None:
        self._ledger, self._machine, self._progress = ledger, machine, progress
        self._open: set[int] = set()

    def begin(self, pack: PackPlan) -> tuple[int, PackPlan, dict[str, Any]] | None:
        """Begin an attempt at what is left of a pack; None if nothing is."""
        self._ledger.ingest()
        left = self._left(pack)
        if not left.runs:
            return None
        keys = [run.key for run in left.runs]
        number = self._ledger.begin_attempt(keys)
        self._open.add(number)
        starts = self._ledger.records.resume_points(keys)
        first = left.runs[0]
        config = {
            "attempt": number,
            "storage": str(self._ledger.storage),
            "specs": [run.spec for run in left.runs],
            "schedule": asdict(first.schedule),
            "starts": [[self._start(stored) for stored in starts[key]] for key in keys],
            "block_s": first.block_s,
            "threads": self._machine.threads,
            "gpus": self._machine.gpus_per_pack,
        }
        return number, left, config

    def _left(self, pack: PackPlan) -> PackPlan:
        standing = self._ledger.records.standing(run.key for run in pack.runs)
        left = [
            replace(run, step=standing[run.key].step)
            for run in pack.runs
            if standing[run.key].is_open(run.schedule.steps)
        ]
        return replace(pack, runs=tuple(left))

    def _start(self, stored: StoredSlice) -> tuple[int, str, dict[str, Any]]:
        path = blocks.manifest_path(self._ledger.storage, stored.attempt, stored.index)
        return stored.step, str(path), asdict(stored.slice)

    def take(self, result: dict[str, Any]) -> None:
        """Take the block of a result into the ledger."""
        self._ledger.take(Path(result["manifest"]))
        self._progress(result["run_steps"])

    def end(self, number: int, outcome: str, error: str) -> None:
        """Record how an attempt ended."""
        self._open.discard(number)
        self._ledger.end_attempt(number, outcome, error)

    def give_up(self, pack: PackPlan, number: int, kind: str, message: str) -> None:
        """Record the runs of a pack as failed."""
        for run in self._left(pack).runs:
            self._ledger.record_failure(run.key, number, kind, message)

    def close(self) -> None:
        """End what is still open when training stops early, with what it committed meanwhile."""
        if self._open:
            self._ledger.ingest()
        for number in sorted(self._open):
            self._ledger.end_attempt(number, "stopped")


@contextmanager
def _stop_on_signals(stop: "StopEarly") -> Iterator[None]:
    """The first SIGINT or SIGTERM ends the experiment after the blocks in work; a second one acts at once."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(*_: object) -> None:
        stop.is_asked = True
        for each in before:
            signal.signal(each, signal.default_int_handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
