"""A pack: R runs built, advanced, evaluated, saved and restored as one stacked program.

A pack knows nothing about files, clocks or Ray. A run's numbers depend only on its own specification: randomness
is a function of (seed, stream, step, index), ghosts fill the pack up to a size that the device's arithmetic knows, and a run
whose numbers stop being finite is frozen there.

Shape suffixes: T steps, R runs (ghost included), N images, B batch, D code dimensions, C H W image.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainables import (
    arithmetic,
    config,
    contracts,
    convolutions,
    fitting,
    ladder,
    sources,
    stepping,
    streams,
)
from trainables.config import Config, RunSpec
from trainables.errors import InputError
from trainables.images import Images, Source
from trainables.random_inputs import ImageBatch, Integers, Normal, Permutations, RandomInput, Uniform

CHUNK_WORDS_CPU, CHUNK_WORDS_GPU = 250_000, 4_000_000
"""Random words generated at once: enough to amortize the calls, few enough for a cache or a small share of a GPU."""


@dataclass(frozen=True)
class ResolvedRun:
    """A run with its model's defaults filled in and its identity known.

    Attributes:
        spec: The run as requested.
        config: The model's `Config`, fitted to the images.
        key: See `config.run_key`.
        static_key: What the runs of a pack share, see `config.static_key`.
        source: The source of its images.
    """

    spec: RunSpec
    config: Config
    key: str
    static_key: str
    source: Source


def resolve(spec: RunSpec) -> ResolvedRun:
    """Resolve one run, see `resolve_all`."""
    return resolve_all([spec])[0]


def resolve_all(specs: Sequence[RunSpec]) -> list[ResolvedRun]:
    """Look up the models and data sets of runs, each data set once, and check their fields.

    Raises:
        InputError: An unknown model, data set or field, an invalid value, or networks that do not support
            these images.
    """
    found = {data: sources.find(data) for data in dict.fromkeys(spec.data for spec in specs)}
    alike: dict[str, list[RunSpec]] = {}
    for spec in specs:
        alike.setdefault(config.but_for_seed(spec), []).append(spec)
    resolved = {
        (token, run.spec.seed): run
        for token, group in alike.items()
        for run in _resolve(group, found[group[0].data])
    }
    return [resolved[config.but_for_seed(spec), spec.seed] for spec in specs]


def resolve_on(spec: RunSpec, source: Source) -> ResolvedRun:
    """Resolve one run on these images, whatever its specification names; see `resolve_all`."""
    return _resolve([spec], source)[0]


def _resolve(specs: Sequence[RunSpec], source: Source) -> list[ResolvedRun]:
    """Resolve runs that differ in their seeds alone."""
    spec = specs[0]
    model = contracts.model(spec.model)
    if wrong := [each.seed for each in specs if not 0 <= each.seed < 2**32]:
        raise InputError(f"Seed {wrong[0]} is outside the range 0 .. {2**32 - 1}.")
    default = model.Config()
    filled = fitting.fitted(config.replace(default, spec.fields), source.shape)
    model.check_shape(filled, source.shape)
    seeds = [each.seed for each in specs]
    keys = config.run_keys(spec, seeds, model.VERSION, fitting.usual(default), filled, source.recipe)
    static_key = config.static_key(spec, filled)
    return [ResolvedRun(each, filled, key, static_key, source) for each, key in zip(specs, keys, strict=True)]


class Pack:
    """R runs that share a static key, at the same step.

    Args:
        runs: The runs, at least one.
        images: Their data set, on the device to train on.
        size: Runs to compute, ghosts included; by default the smallest size that the device supports.
        launch: How steps are launched; by default the best way on the device.

    Attributes:
        step: Updates done.
        model: The stacked model, ghosts included; they are the last and copies of the first run.
        alive_R: Which runs are still finite.
        launch: How steps are launched.
    """

    def __init__(
        self,
        runs: Sequence[ResolvedRun],
        images: Images,
        size: int | None = None,
        launch: stepping.Launch | None = None,
    ) -> None:
        if len({run.static_key for run in runs}) != 1:
            raise ValueError("the runs of a pack must share one static key")
        self.runs = tuple(runs)
        self.images = images
        self.device = images.device
        self.step = 0
        size = size or ladder.stack_size(self.device.type, len(runs))
        if size < len(runs):
            raise ValueError(f"a pack of size {size} does not hold {len(runs)} runs")
        computed = [*runs, *[runs[0]] * (size - len(runs))]
        self.seeds = [run.spec.seed for run in computed]
        module = contracts.model(runs[0].spec.model)
        self.model = module.Model(
            [run.config for run in computed], images.shape, self._initial_uniform, self.device
        )
        self._inputs: dict[str, RandomInput] = self.model.random_inputs()
        counts = {name: num_words(kind) for name, kind in self._inputs.items()}
        self._streams = streams.Streams(self.seeds, counts, self.device)
        chunk_words = CHUNK_WORDS_CPU if self.device.type == "cpu" else CHUNK_WORDS_GPU
        self._chunk = max(1, chunk_words // (len(computed) * sum(counts.values())))
        self.alive_R = torch.ones(len(computed), dtype=torch.bool, device=self.device)
        self._died_at_R = torch.full((len(computed),), -1, dtype=torch.int64, device=self.device)
        self._last: dict[str, torch.Tensor] = {}
        self.launch = stepping.choose(self.device, images.are_on_device, launch)
        self._stepper: stepping.Stepper = (
            stepping.Graph(self._chunk, stepping.capture_on(self.device))
            if self.launch == "graph"
            else stepping.Eager()
        )

    def _initial_uniform(self, name: str, count: int) -> torch.Tensor:
        first = torch.zeros(1, dtype=torch.int64, device=self.device)
        bits = streams.Streams(self.seeds, {name: count}, self.device).bits(first)
        return streams.uniform(bits[name])[0]

    @property
    def num_parameters(self) -> dict[str, int]:
        """Number of trained values of one run, by network."""
        return {name: adam.parameters.num_parameters for name, adam in self.model.optimizers.items()}

    def advance(self, num_steps: int) -> None:
        """Train every run that is alive for this many more steps; the last step reports statistics."""
        end = self.step + num_steps
        while self.step < end:
            count = min(self._chunk, end - self.step)
            steps_T = torch.arange(self.step, self.step + count, device=self.device)
            self._stepper.run(
                self._update, self.generate_inputs(steps_T), is_reported=self.step + count == end
            )
            self.step += count

    def generate_inputs(self, steps_T: torch.Tensor) -> dict[str, torch.Tensor]:
        """The random inputs of these steps, each (T, ...), as the model requests them, but with rows in place of images.

        The step itself is included, under `step`.
        """
        inputs = {"step": steps_T}
        for name, bits in self._streams.bits(steps_T).items():
            match self._inputs[name]:
                case ImageBatch():
                    inputs[name] = streams.integers(bits, len(self.images))
                case Normal(shape):
                    inputs[name] = streams.normal(bits)[..., : math.prod(shape)].unflatten(2, shape)
                case Uniform(shape):
                    inputs[name] = streams.uniform(bits).unflatten(2, shape)
                case Integers(high):
                    inputs[name] = streams.integers(bits, high)
                case Permutations(count, size):
                    inputs[name] = streams.permutations(bits.unflatten(2, (count, size)))
        return inputs

    def gathered(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The random inputs of a step as its model expects them: images in place of their rows."""
        return {
            name: self.images.at(inputs[name]) if isinstance(kind, ImageBatch) else inputs[name]
            for name, kind in self._inputs.items()
        }

    def _update(self, inputs: Mapping[str, torch.Tensor], is_reported: bool) -> None:
        """One step, on the device only: it may be captured, so it must not read anything back."""
        precision = self.runs[0].spec.precision
        with convolutions.of_first_runs(len(self.runs)), arithmetic.in_precision(precision, self.device):
            reported = self.model.update(self.gathered(inputs), self.alive_R, is_reported=is_reported)
        alive_R = reported.pop("alive")
        self._died_at_R.copy_(torch.where(self.alive_R & ~alive_R, inputs["step"], self._died_at_R))
        self.alive_R.copy_(alive_R)
        if is_reported:
            for name, value_R in reported.items():
                # The next graph reuses a graph's own memory.
                self._last.setdefault(name, torch.empty_like(value_R)).copy_(value_R)

    def statistics(self) -> list[dict[str, float]]:
        """The statistics of the last step, one dictionary per run; empty before the first step."""
        values = {name: value.tolist() for name, value in self._last.items()}
        return [{name: column[r] for name, column in values.items()} for r in range(len(self.runs))]

    def first_bad_steps(self) -> list[int | None]:
        """The first step of each run whose loss or gradient was not finite; None if there is none."""
        return [step if step >= 0 else None for step in self._died_at_R.tolist()[: len(self.runs)]]

    def state(self, r: int) -> dict[str, np.ndarray]:
        """Everything that run r needs to resume exactly from here."""
        tensors = {"alive": self.alive_R, "died_at": self._died_at_R} | self._optimizer_state()
        return {name: tensor[r].cpu().numpy().copy() for name, tensor in tensors.items()}

    def states(self) -> list[dict[str, np.ndarray]]:
        """The state of every run."""
        return [self.state(r) for r in range(len(self.runs))]

    def restore(self, step: int, states: Sequence[Mapping[str, np.ndarray]]) -> None:
        """Resume from what `states` returned at this step, in this or another pack."""
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
        """The weights of each run that encode and decode: arrays by name of parameter or buffer."""
        arrays = {
            name: tensor.detach().cpu().numpy()
            for network in self.model.KEPT
            for name, tensor in self.model.optimizers[network].parameters.tensors.items()
        }
        arrays |= {name: buffer_RP.cpu().numpy() for name, buffer_RP in self.model.buffers.items()}
        return [{name: array[r] for name, array in arrays.items()} for r in range(len(self.runs))]


def num_words(kind: RandomInput) -> int:
    """The random words that a run uses for an input in each step."""
    match kind:
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
