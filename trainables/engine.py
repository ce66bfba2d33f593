"""A pack: R runs built, advanced, evaluated, saved and restored as one stacked program.

A pack knows nothing of files, clocks or Ray. All that a run's numbers depend on is its own specification: randomness
is a function of (seed, stream, step, index), a lone run is computed beside a ghost of itself, and a run whose numbers
stop being finite is frozen where it stood.

Shape suffixes: T steps, R runs (ghost included), N images, B batch, D code dimensions, C H W image.
"""

import contextlib
import ctypes
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables import config, plugins, sources, streams
from trainables.config import RunSpec
from trainables.data._images import Images, Source
from trainables.errors import InputError
from trainables.models._draws import Draw, ImageBatch, Integers, Normal, Permutations, Uniform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

MIN_RUNS = 2
CHUNK_WORDS = {"cpu": 250_000, "cuda": 16_000_000}
"""Random words drawn at once: enough to pay for the calls, on a CPU few enough to stay in a cache."""


@dataclass(frozen=True)
class Resolved:
    """A run with its model's defaults filled in and its identity known.

    Attributes:
        spec: The run as it was asked for.
        config: The model's `Config`.
        key: See `config.run_key`.
        static_key: What the runs of a pack share, see `config.static_key`.
        source: Where its images come from.
    """

    spec: RunSpec
    config: Any
    key: str
    static_key: str
    source: Source


def resolve(spec: RunSpec) -> Resolved:
    """One run, see `resolve_all`."""
    return resolve_all([spec])[0]


def resolve_all(specs: Sequence[RunSpec]) -> list[Resolved]:
    """Look up the models and data sets of runs, each data set once, and check their fields.

    Raises:
        InputError: An unknown model, data set or field, a value that a field does not take, or networks that do not take
            these images.
    """
    found = {data: sources.find(data) for data in dict.fromkeys(spec.data for spec in specs)}
    return [_resolve(spec, found[spec.data]) for spec in specs]


def _resolve(spec: RunSpec, source: Source) -> Resolved:
    model = plugins.load("trainables.models", spec.model, "model")
    if not 0 <= spec.seed < 2**32:
        raise InputError(f"Seed {spec.seed} is outside 0 .. {2**32 - 1}.")
    default = model.Config()
    filled = config.replace(default, spec.fields)
    model.check_shape(filled, source.shape)
    key = config.run_key(spec, model.VERSION, default, filled, source.recipe)
    return Resolved(spec, filled, key, config.static_key(spec, filled), source)


def set_arithmetic(precision: str, num_threads: int) -> None:
    """Fix what the bits of this process depend on, whatever the machine would choose by itself."""
    torch.set_num_threads(num_threads)
    # Dead units and old moments turn denormal, and denormal arithmetic is many times slower.
    torch.set_flush_denormal(True)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def pick_device(gpus: float) -> torch.device:
    """Where a pack with this share of a GPU trains; on a node without any, Ray's GPU is a logical one, of a test.

    Raises:
        RuntimeError: The node has a GPU that torch cannot use; a pack would train for weeks on its CPU.
    """
    if not gpus:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        if Path("/dev/nvidiactl").exists():
            raise RuntimeError(
                "This node has an NVIDIA GPU that torch cannot use: its driver is too old for this torch, or torch"
                " is a CPU build. Compare `nvidia-smi` with `python -c 'import torch; print(torch.version.cuda)'`."
            )
        return torch.device("cpu")
    torch.cuda.set_per_process_memory_fraction(min(1.0, gpus))
    return torch.device("cuda")


def keep_freed_memory() -> None:
    """Let the C library keep what is freed: fetching fresh pages for every activation takes up to half of a step.

    Does nothing where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the largest value that is accepted
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Give back what `keep_freed_memory` kept. Does nothing where the C library is not glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def numerics_class(device: torch.device, precision: str, num_runs: int) -> str:
    """Within what bits are promised: device model and ISA, torch, threads, precision.

    On a CPU the pack does not matter. On CUDA it does: cuBLAS picks its kernels by the number of matrices.
    """
    if device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)}, {num_runs} stacked"
    else:
        isa = torch.backends.cpu.get_cpu_capability()
        where = f"{platform.machine()} {isa}, {torch.get_num_threads()} thread(s)"
    return f"{device.type} {where}, torch {torch.__version__}, {precision}"


class Pack:
    """R runs that share a static key, at the same step.

    Args:
        runs: The runs, at least one.
        images: Their data set, on the device to train on.

    Attributes:
        step: Updates done.
        model: The stacked model, with a ghost beside a lone run.
        alive_R: Which runs are finite so far.
    """

    def __init__(self, runs: Sequence[Resolved], images: Images) -> None:
        if len({run.static_key for run in runs}) != 1:
            raise ValueError("the runs of a pack share one static key")
        self.runs = tuple(runs)
        self.images = images
        self.device = images.device
        self.step = 0
        computed = [*runs, *[runs[0]] * (MIN_RUNS - len(runs))]
        self.seeds = [run.spec.seed for run in computed]
        module = plugins.load("trainables.models", runs[0].spec.model, "model")
        self.model = module.Model(
            [run.config for run in computed], images.shape, self._initial_uniform, self.device
        )
        self._draws: dict[str, Draw] = self.model.draws()
        counts = {name: _num_words(draw) for name, draw in self._draws.items()}
        self._streams = streams.Streams(self.seeds, counts, self.device)
        self._chunk = max(1, CHUNK_WORDS[self.device.type] // (len(computed) * sum(counts.values())))
        self.alive_R = torch.ones(len(computed), dtype=torch.bool, device=self.device)
        self._died_at_R = torch.full((len(computed),), -1, dtype=torch.int64, device=self.device)
        self._last: dict[str, torch.Tensor] = {}

    def _initial_uniform(self, name: str, count: int) -> torch.Tensor:
        first = torch.zeros(1, dtype=torch.int64, device=self.device)
        bits = streams.Streams(self.seeds, {name: count}, self.device).bits(first)
        return streams.uniform(bits[name])[0]

    @property
    def num_parameters(self) -> dict[str, int]:
        """Trained values of one run, by network."""
        return {name: adam.parameters.num_parameters for name, adam in self.model.optimizers.items()}

    def advance(self, num_steps: int) -> None:
        """Train every run that is alive for this many more steps; the last one reports its statistics."""
        end = self.step + num_steps
        while self.step < end:
            steps_T = torch.arange(self.step, min(self.step + self._chunk, end), device=self.device)
            for draw in self._draw(steps_T):
                self._last = self.model.update(draw, self.alive_R, is_reported=self.step == end - 1)
                died_R = self.alive_R & ~self._last["alive"]
                self._died_at_R = torch.where(died_R, self.step, self._died_at_R)
                self.alive_R = self._last.pop("alive")
                self.step += 1

    def _draw(self, steps_T: torch.Tensor) -> Iterator[dict[str, torch.Tensor]]:
        """What each of these steps draws; images are gathered one step at a time."""
        drawn = {}
        for name, bits in self._streams.bits(steps_T).items():
            match self._draws[name]:
                case ImageBatch():
                    drawn[name] = streams.integers(bits, len(self.images))
                case Normal(shape):
                    drawn[name] = streams.normal(bits)[..., : math.prod(shape)].unflatten(2, shape)
                case Uniform(shape):
                    drawn[name] = streams.uniform(bits).unflatten(2, shape)
                case Integers(high):
                    drawn[name] = streams.integers(bits, high)
                case Permutations(count, size):
                    drawn[name] = streams.permutations(bits.unflatten(2, (count, size)))
        for t in range(len(steps_T)):
            yield {
                name: self.images.at(values[t]) if isinstance(self._draws[name], ImageBatch) else values[t]
                for name, values in drawn.items()
            }

    def statistics(self) -> list[dict[str, float]]:
        """What the last step reported, one dictionary a run; empty before the first step."""
        values = {name: value.tolist() for name, value in self._last.items()}
        return [{name: column[r] for name, column in values.items()} for r in range(len(self.runs))]

    def first_bad_steps(self) -> list[int | None]:
        """The first step of each run whose loss or gradient was not finite, None while all were."""
        return [step if step >= 0 else None for step in self._died_at_R.tolist()[: len(self.runs)]]

    def state(self, r: int) -> dict[str, np.ndarray]:
        """All that run r needs to go on exactly from here."""
        tensors = {"alive": self.alive_R, "died_at": self._died_at_R} | self._optimizer_state()
        return {name: tensor[r].cpu().numpy().copy() for name, tensor in tensors.items()}

    def states(self) -> list[dict[str, np.ndarray]]:
        """The state of every run."""
        return [self.state(r) for r in range(len(self.runs))]

    def restore(self, step: int, states: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Go on from what `states` returned at this step, in this or another pack."""
        states = [*states, *[states[0]] * (len(self.seeds) - len(states))]
        tensors = {"alive": self.alive_R, "died_at": self._died_at_R} | self._optimizer_state()
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(np.stack([state[name] for state in states])))
        for adam in self.model.optimizers.values():
            adam.num_steps.fill_(step * adam.steps_per_update)
        self.step = step

    def _optimizer_state(self) -> dict[str, torch.Tensor]:
        state = {}
        for name, adam in self.model.optimizers.items():
            state[f"{name}.values"] = adam.parameters.values_RP
            state[f"{name}.first_moment"] = adam.first_moment_RP
            state[f"{name}.second_moment"] = adam.second_moment_RP
        return state | {f"buffers.{name}": buffer_RP for name, buffer_RP in self.model.buffers.items()}

    def weights(self) -> list[dict[str, np.ndarray]]:
        """What encodes and decodes of each run, arrays by name of parameter or buffer."""
        arrays = {
            name: tensor.detach().cpu().numpy()
            for network in self.model.KEPT
            for name, tensor in self.model.optimizers[network].parameters.tensors.items()
        }
        arrays |= {name: buffer_RP.cpu().numpy() for name, buffer_RP in self.model.buffers.items()}
        return [{name: array[r] for name, array in arrays.items()} for r in range(len(self.runs))]


def _num_words(draw: Draw) -> int:
    match draw:
        case ImageBatch(size):
            return size
        case Normal(shape):
            return math.prod(shape) + math.prod(shape) % 2
        case Uniform(shape):
            return math.prod(shape)
        case Integers(_, count):
            return count
        case Permutations(count, size):
            return count * size
