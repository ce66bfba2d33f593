"""Where packs train: this machine or a cluster, its cores and GPUs, and how many packs it trains at once."""

import contextlib
import csv
import math
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trainables.config import STATE_EVERY_S
from trainables.errors import InputError

Device = Literal["auto", "cpu", "gpu"]


UNKNOWN_GPU = "GPU"
"""Kind of a GPU whose kind is not known."""


@dataclass(frozen=True)
class Machine:
    """Where packs train, as far as the user decided it.

    Attributes:
        address: Address of a running cluster, None for this machine alone.
        gpus_per_pack: Share of a GPU that a pack uses, 1 / k; 0 for CPU packs; None to choose by measuring.
        threads: CPU threads of a pack.
        cluster_gpus: GPUs that a cluster will grow to; 0 for those it has.
        cluster_gpu: Their kind, as Ray names it; empty if it was not said.
        device: Device to train on; `auto` is the device that a sweep began on, otherwise a GPU if there is one.
        state_every_s: Least seconds of training between two states to resume from.
        max_pack: Most runs of a pack on a GPU; None for the default.
        pack_size: Runs that every pack computes on a GPU, ghosts included; None for the fewest that hold its runs.
        ray: Whether packs train in workers of Ray, or in the driver's own process, one after the other; None for Ray unless
            training is short.
    """

    address: str | None
    gpus_per_pack: float | None
    threads: int = 1
    cluster_gpus: int = 0
    cluster_gpu: str = ""
    device: Device = "auto"
    state_every_s: float = STATE_EVERY_S
    max_pack: int | None = None
    pack_size: int | None = None
    ray: bool | None = None


@dataclass(frozen=True)
class Resources:
    """The resources of a machine or a cluster.

    Attributes:
        num_cpus: Number of cores.
        num_gpus: Number of GPUs; for an autoscaled cluster, the number that it may grow to.
        gpu: Name and memory of the GPUs, as far as known.
        problem: Why there is no GPU although one may be expected.
        num_nodes: Number of machines that are up.
    """

    num_cpus: float
    num_gpus: float
    gpu: str = UNKNOWN_GPU
    problem: str = ""
    num_nodes: int = 1


MAX_PACKS_PER_GPU = 100

DRIVER_S = 20.0
"""Longest time for the GPU driver to list a machine's GPUs; it takes seconds if it was not used before."""


def check_share(share: float) -> None:
    """Reject a GPU share that does not divide a GPU without remainder.

    Raises:
        InputError: It does not; the message suggests the nearest shares that do.
    """
    is_part = 0 < share < 1 / MAX_PACKS_PER_GPU
    if not 0 <= share <= 1 or is_part:
        raise InputError(
            f"--gpus-per-pack {share:g}: a pack uses one GPU or 1/k of it.\n"
            "Valid: 0 (CPU), 1, 0.5, 0.333, 0.25 ..."
        )
    if share:
        k = round(1 / share)
        if abs(share - 1 / k) > 1e-3:
            below, above = int(1 / share) + 1, int(1 / share)
            raise InputError(
                f"--gpus-per-pack {share:g} leaves part of each GPU idle.\n"
                f"Use {1 / below:.3g} ({below} packs per GPU) or {1 / above:.3g} ({above} packs per GPU)."
            )


def check_device(machine: Machine) -> None:
    """Reject a device and a GPU share that contradict each other or are not available.

    Raises:
        InputError: They contradict each other, or a GPU is requested and this machine has none.
    """
    device, share = machine.device, machine.gpus_per_pack
    if share is not None and device != "auto" and (device == "cpu") != (share == 0):
        raise InputError(
            f"--device {device} and --gpus-per-pack {share:g} contradict each other.\nLeave out one of them."
        )
    if (share or device == "gpu") and machine.address is None:
        gpus, problem = local_gpus()
        if not gpus:
            asked = f"--gpus-per-pack {share:g}" if share else "--device gpu"
            option = asked.partition(" ")[0]
            raise InputError(
                f"{asked}: {problem or 'this machine has no GPU'}.\nLeave out {option}, or use a cluster with --address."
            )


def local_resources() -> Resources:
    """Return the resources of this machine, without starting Ray."""
    gpus, problem = local_gpus()
    return Resources(num_cores(), len(gpus), gpus[0] if gpus else UNKNOWN_GPU, problem)


def num_slots(resources: Resources, machine: Machine) -> int:
    """Return how many packs are trained at once.

    Raises:
        InputError: A GPU is requested and there is none.
    """
    if machine.ray is False:
        return 1
    if not machine.gpus_per_pack:
        return max(1, int(resources.num_cpus / machine.threads))
    if not resources.num_gpus:
        raise InputError(
            f"--gpus-per-pack {machine.gpus_per_pack:g}: the cluster at {machine.address} has no GPU.\n"
            "Leave it out, or set --cluster-gpus to the number that it may grow to."
        )
    slots = int(resources.num_gpus * round(1 / machine.gpus_per_pack))
    if machine.address is None:  # nodes of a cluster that have yet to start bring their own cores
        slots = min(slots, int(resources.num_cpus / machine.threads))
    return max(1, slots)


def num_cores() -> int:
    """Return the number of CPU cores that this process may use, by its affinity and its container's quota."""
    affinity = getattr(os, "sched_getaffinity", None)  # only exists on Linux
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no cgroup, or no limit ("max")
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
        cores = min(cores, math.ceil(quota / period))
    return max(1, cores)


def local_gpus() -> tuple[list[str], str]:
    """Return name and memory of the GPUs of this machine that we may use, and the driver's problem if it cannot list them."""
    if not shutil.which("nvidia-smi"):  # torch could tell, but takes seconds to import
        return [], ""
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        ran = subprocess.run(
            query, capture_output=True, text=True, errors="replace", check=False, timeout=DRIVER_S
        )
    except subprocess.TimeoutExpired:
        return [], f"nvidia-smi does not answer within {DRIVER_S:.0f} s"
    except OSError as error:
        return [], f"nvidia-smi cannot be run: {error}"
    if ran.returncode:
        said = (ran.stdout + ran.stderr).strip().splitlines()
        return [], f"nvidia-smi fails: {said[0] if said else f'exit code {ran.returncode}'}"
    found = [_gpu_words(*row) for row in csv.reader(ran.stdout.splitlines()) if len(row) == 2]
    return _visible(found, os.environ.get("CUDA_VISIBLE_DEVICES")), ""


def _visible(gpus: list[str], allowed: str | None) -> list[str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES allows; as in CUDA, the list ends at the first invalid entry."""
    if allowed is None:
        return gpus
    shown: dict[str, str] = {}
    for name in map(str.strip, allowed.split(",")):
        if name in shown or not (name.isdecimal() or name.startswith(("GPU-", "MIG-"))):
            break
        if name.isdecimal() and int(name) >= len(gpus):
            break
        shown[name] = gpus[int(name)] if name.isdecimal() else gpus[min(len(shown), len(gpus) - 1)]
    return list(shown.values()) if gpus else []


def _gpu_words(name: str, memory_mib: str) -> str:
    known = memory_mib.strip().isdecimal()  # some drivers report [N/A]
    return f"{name.strip()}, {float(memory_mib) / 1024:.0f} GiB" if known else name.strip()


def exact_share(share: float) -> float:
    """Return 1 / k as Ray counts it, in ten-thousandths rounded down, so that k of them fit."""
    return share if share in (0, 1) else int(10_000 / round(1 / share)) / 10_000
