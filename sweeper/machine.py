"""Where packs train: this machine or a cluster, the shares of its GPUs, what it holds at once, what a pack costs on it."""

import contextlib
import logging
import math
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.probing import Measured
from trainables.config import RunSpec
from trainables.errors import InputError

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
        gpus_per_pack: Share of a GPU that a pack takes, 1 / k; 0 for CPU packs.
        threads: CPU threads of a pack.
        cluster_gpus: GPUs that a cluster will grow to; 0 for those it has.
    """

    address: str | None
    gpus_per_pack: float
    threads: int = 1
    cluster_gpus: int = 0


MAX_PACKS_PER_GPU = 100

EXPECTED_GPUS = 4
"""Of a cluster that shows none yet; packs are formed for so many, and wait until they come."""

ANSWER_S = 3.0
"""How long a cluster has to answer."""

MEASURE_S = 60.0
"""How long a cluster has to measure a pack; nodes that are still being started take longer."""


def check_share(share: float) -> None:
    """Accept a GPU share that divides a GPU without remainder.

    Raises:
        InputError: It does not; the message offers the nearest that do.
    """
    is_part = 0 < share < 1 / MAX_PACKS_PER_GPU
    if not 0 <= share <= 1 or is_part:
        raise InputError(
            f"--gpus-per-pack {share:g}: a pack trains on one GPU or 1/k of it.\n"
            "Valid are 0 (CPU), 1, 0.5, 0.333, 0.25 ..."
        )
    if share:
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
    if str(address).startswith("ray://"):
        raise InputError(
            f"--address {address}: Tune needs its driver inside the cluster, Ray Client is none.\n"
            "Run this command on the head node with --address auto."
        )
    host, _, port = str(address).rpartition(":")
    try:
        socket.create_connection((host, int(port)), ANSWER_S).close()
    except (OSError, ValueError, OverflowError):
        raise InputError(
            f"--address {address}: no Ray cluster answers there; valid are auto and HOST:PORT.\n"
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
        options |= {"include_dashboard": False, "num_cpus": num_cores()}
    try:
        # Not None, which would join whatever cluster was started on this machine, or RAY_ADDRESS.
        ray.init(address=machine.address or "local", **options)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        if machine.address is None:
            raise
        (reason, *_) = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"--address {machine.address}: Ray does not let us in ({reason}).\n"
            "Start a cluster with `ray start --head`, give its token, or leave --address out."
        ) from None
    try:
        yield _num_slots(ray.cluster_resources(), machine)
    finally:
        ray.shutdown()


def measure_on_cluster(run: RunSpec, num_runs: int, gpus: float, threads: int) -> Measured | None:
    """What a pack costs on a node of the cluster that was joined; None if no node is free for it soon."""
    import ray

    @ray.remote(num_cpus=threads, num_gpus=exact_share(gpus), max_retries=0, max_calls=1)
    def task() -> dict[str, float]:
        from trainables import probe

        return probe.measure(run, num_runs, gpus, threads)

    asked = task.remote()
    try:
        return Measured(**ray.get(asked, timeout=MEASURE_S))
    except ray.exceptions.RayError:  # a pack that cannot train says why when it is tried
        ray.cancel(asked, force=True)
        return None


def local_slots(machine: Machine) -> int:
    """How many packs this machine holds at once, without starting Ray.

    Raises:
        InputError: A GPU is asked for and there is none.
    """
    return _num_slots({"CPU": num_cores(), "GPU": _num_local_gpus()}, machine)


def num_cores() -> int:
    """CPU cores that this process may use, by its affinity and its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or no limit ("max")
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
        cores = min(cores, math.ceil(quota / period))
    return max(1, cores)


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
    # An autoscaled cluster has few GPUs, or none, before packs ask for them.
    gpus = max(gpus, machine.cluster_gpus) or EXPECTED_GPUS
    return max(1, int(gpus * round(1 / machine.gpus_per_pack)))


def exact_share(share: float) -> float:
    """1 / k as Ray counts it, in ten-thousandths rounded down, so that k of them fit."""
    return share if share in (0, 1) else int(10_000 / round(1 / share)) / 10_000
