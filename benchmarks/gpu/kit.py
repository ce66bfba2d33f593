"""What the stages share: the sizes, packs and images to measure, and how rates are measured."""

import gc
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainables import arithmetic, engine, stepping
from trainables.config import Precision, RunSpec
from trainables.engine import Pack, ResolvedRun
from trainables.images import Images

GIB = 2**30

Row = dict[str, Any]
"""One measured row of a stage."""

TINY_VAE = {"vae.network": "mlp", "vae.latent_dim": 6, "vae.width": 64}
TINY: dict[str, dict[str, Any]] = {
    "beta_vae": TINY_VAE,
    "factor_vae": {**TINY_VAE, "discriminator.width": 64, "discriminator.depth": 3},
    "info_wgan_gp": {"network": "mlp", "width": 64, "generator.noise_dim": 5},
}
"""Fields of a rehearsal's runs."""

MODELS = tuple(TINY)

GFLOP = {"beta_vae": 6.08, "factor_vae": 10.95, "info_wgan_gp": 61.8}
"""Arithmetic of a run-step at the paper's size: batch size 64, five critic steps of InfoWGAN-GP."""

PARAMETERS = {"beta_vae": 498_005, "factor_vae": 498_005 + 5_018_002, "info_wgan_gp": 0}
"""Trained values, each of which moves 28 bytes in an update by Adam; InfoWGAN-GP has few relative to its arithmetic."""


@dataclass
class Bench:
    """What is measured, and how much time is left.

    Attributes:
        device: Device that is measured.
        is_rehearsal: Whether sizes are tiny, on a CPU.
        keep: Folder that outlives the measurement, for states to resume from.
        deadline_s: When the current stage must end, on the monotonic clock.
        ceilings: Bytes and operations per second that the card reaches, once measured.
    """

    device: torch.device
    is_rehearsal: bool
    keep: Path
    deadline_s: float = float("inf")
    ceilings: dict[str, float] = field(default_factory=dict)

    @property
    def left_s(self) -> float:
        """Seconds that the stage may still take."""
        return self.deadline_s - time.monotonic()

    @property
    def num_runs(self) -> int:
        """Runs of the standard pack, of which one property at a time is varied."""
        return 3 if self.is_rehearsal else 64

    @property
    def sizes(self) -> tuple[int, ...]:
        """Pack sizes, where the size is varied."""
        return (1, 2, 3) if self.is_rehearsal else (64, 8, 1, 16, 32, 128)

    @property
    def repeat_s(self) -> float:
        """Seconds of one timed repetition."""
        return 0.01 if self.is_rehearsal else 0.3

    @property
    def data(self) -> str:
        """Data set to train on."""
        return "sprites" if self.is_rehearsal else "dsprites"

    def run(
        self,
        model: str,
        seed: int,
        precision: Precision = "tf32",
        fields: Mapping[str, Any] | None = None,
    ) -> ResolvedRun:
        """Return a run at the paper's size, or a tiny one in a rehearsal."""
        sizes = TINY[model] if self.is_rehearsal else {}
        return engine.resolve(RunSpec(model, self.data, {**sizes, **(fields or {})}, seed, precision))

    @cached_property
    def images(self) -> Images:
        """The data set on the device."""
        return self.run("beta_vae", 0).source.load(self.device)

    def pack(
        self,
        model: str = "factor_vae",
        num_runs: int | None = None,
        precision: Precision = "tf32",
        launch: stepping.Launch = "graph",
        first_seed: int = 0,
    ) -> Pack:
        """Return a pack of runs with different seeds and no ghosts; release the previous pack first to measure its memory."""
        num_runs = num_runs or self.num_runs
        arithmetic.set_arithmetic(precision, 1)
        runs = [self.run(model, first_seed + seed, precision) for seed in range(num_runs)]
        return Pack(runs, self.images, size=num_runs, launch=launch)

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def forget(self) -> None:
        """Free the memory of earlier measurements, and reset its peak."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def memory(self) -> Row:
        """Return the peak memory since `forget`."""
        if self.device.type != "cuda":
            return {}
        return {
            "memory_gib": round(torch.cuda.max_memory_allocated(self.device) / GIB, 2),
            "reserved_gib": round(torch.cuda.max_memory_reserved(self.device) / GIB, 2),
        }

    @property
    def num_repeats(self) -> int:
        """Timed repetitions, whose median is used."""
        return 2 if self.is_rehearsal else 5

    def rate(self, pack: Pack) -> Row:
        """Measure a pack's run-steps per second in steady state and their spread, including random numbers and data."""
        begun = time.perf_counter()
        pack.advance(stepping.WARM_UP_STEPS + 2)
        self.synchronize()
        warm_up_s = time.perf_counter() - begun
        stride = self._stride(pack)
        steps_s = []
        for _ in range(self.num_repeats):
            begun = time.perf_counter()
            pack.advance(stride)
            self.synchronize()
            steps_s.append((time.perf_counter() - begun) / stride)
        num_runs, median_s = len(pack.seeds), statistics.median(steps_s)
        return {
            "runs": num_runs,
            "run_steps_per_s": round(num_runs / median_s, 1),
            "low": round(num_runs / max(steps_s), 1),
            "high": round(num_runs / min(steps_s), 1),
            "step_ms": round(1e3 * median_s, 3),
            "steps": stride * self.num_repeats,
            "warm_up_s": round(warm_up_s, 2),
        }

    def _stride(self, pack: Pack) -> int:
        """Return the steps of a repetition."""
        begun, steps = time.perf_counter(), 4
        pack.advance(steps)
        self.synchronize()
        return max(1, round(steps * self.repeat_s / (time.perf_counter() - begun)))

    def floor(self, model: str, precision: str) -> Row:
        """Return the least time of a run-step, by arithmetic and by bytes of Adam, at the measured ceilings."""
        peak, bandwidth = self.ceilings.get(f"{precision}_tflops"), self.ceilings.get("copy_tb_per_s")
        if self.is_rehearsal or not peak or not bandwidth:
            return {}
        arithmetic_us = GFLOP[model] / peak * 1e3
        bytes_us = 28 * PARAMETERS[model] / bandwidth / 1e6
        return {"floor_us": round(max(arithmetic_us, bytes_us), 2)}

    def rated(self, pack: Pack, **what: Any) -> Row:
        """Measure the rate of a pack, with its memory and the fraction of its floor."""
        spec = pack.runs[0].spec
        row = {"model": spec.model, "precision": spec.precision, "launch": pack.launch, **what}
        row |= self.rate(pack) | self.memory() | self.floor(spec.model, spec.precision)
        if "floor_us" in row:
            row["of_floor"] = round(row["floor_us"] * 1e-6 * row["run_steps_per_s"], 3)
        return row


class _Counting(TorchDispatchMode):
    """Counts tensor operations that are not views."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


def operations(pack: Pack) -> int:
    """Count the tensor operations of one update, without those that generate its inputs. The pack trains one more step."""
    with _Counting() as counting:
        _one_update(pack)
    return counting.count


def kernels(pack: Pack) -> int | None:
    """Count the kernels of one update on CUDA, as in `operations`; None if the profiler sees none.

    The profiler may slow down later work of its process.
    """
    if pack.device.type != "cuda":
        return None
    from torch.autograd import DeviceType  # type: ignore[attr-defined]
    from torch.profiler import ProfilerActivity, profile

    try:
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            _one_update(pack)
            torch.cuda.synchronize(pack.device)
        count = sum(event.device_type == DeviceType.CUDA for event in profiler.events() or [])
    except RuntimeError:
        return None
    return count or None


def _one_update(pack: Pack) -> None:
    drawn = pack.generate_inputs(torch.arange(pack.step, pack.step + 1, device=pack.device))
    pack._update({name: values[0] for name, values in drawn.items()}, is_reported=False)


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON so that the file is complete at any moment."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(path)
