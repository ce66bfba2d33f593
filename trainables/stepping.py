"""How the steps of a pack are launched: one by one, or as a CUDA graph that is captured once and replayed.

A step of these small networks is hundreds of short kernels, which Python launches more slowly than a GPU computes them.
A graph launches them all at once. Both ways call the same function, which reads nothing back from the device.

Shape suffix: T steps.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch

from trainables.errors import is_out_of_memory

Tensors = Mapping[str, torch.Tensor]

Step = Callable[[Tensors, bool], None]
"""One update of a pack, from what it draws and whether it reports; all that it changes lies on the device."""

Launch = Literal["eager", "graph"]

WARM_UP_STEPS = 4
"""Steps before a capture: libraries load kernels and take workspaces at their first use, which no capture may do."""


def choose(device: torch.device, are_images_there: bool, launch: Launch | None) -> Launch:
    """How steps are launched: as a graph on CUDA, unless each step waits for images from the machine's memory.

    Args:
        device: Where the pack trains.
        are_images_there: Whether the device holds the data set.
        launch: What was asked for; None for what is best.
    """
    if launch is not None:
        return launch
    return "graph" if device.type == "cuda" and are_images_there else "eager"


class Stepper(ABC):
    """Launches steps."""

    @abstractmethod
    def run(self, drawn: Tensors, is_reported: bool) -> None:
        """Launch as many steps as were drawn for.

        Args:
            drawn: What the steps draw, each (T, ...).
            is_reported: Whether the last one reports.
        """


class Eager(Stepper):
    """Launches each operation of each step from Python.

    Args:
        step: See `Step`.
    """

    def __init__(self, step: Step) -> None:
        self._step = step

    def run(self, drawn: Tensors, is_reported: bool) -> None:
        """Launch steps; see `Stepper.run`."""
        num_steps = _num_steps(drawn)
        for t in range(num_steps):
            self._step(
                {name: values[t] for name, values in drawn.items()}, is_reported and t == num_steps - 1
            )


Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Turns a function of device work into one that repeats this work."""


class Graph(Stepper):
    """Replays a step that was captured once; the place in what was drawn is counted on the device.

    The first steps are launched one by one. Where capturing fails, all are.

    Args:
        step: See `Step`.
        max_steps: Most steps that are drawn at once.
        capture: How a step is captured, see `capture_on`.
    """

    def __init__(self, step: Step, max_steps: int, capture: Capture) -> None:
        self._step, self._max_steps, self._capture = step, max_steps, capture
        self._num_warm = 0
        self._replays: dict[bool, Callable[[], None]] = {}
        self._drawn: dict[str, torch.Tensor] = {}

    def run(self, drawn: Tensors, is_reported: bool) -> None:
        """Launch steps; see `Stepper.run`."""
        num_steps, first = _num_steps(drawn), 0
        while first < num_steps and self._num_warm < WARM_UP_STEPS:
            # Both kinds of step are warmed; one that need not report may.
            reports = self._num_warm % 2 == 0 or (is_reported and first == num_steps - 1)
            self._step({name: values[first] for name, values in drawn.items()}, reports)
            self._num_warm, first = self._num_warm + 1, first + 1
        if first == num_steps:
            return
        if not self._replays:
            self._prepare(drawn)
        for name, values_T in drawn.items():
            self._drawn[name][: num_steps - first].copy_(values_T[first:])
        self._place.zero_()
        for _ in range(first, num_steps - 1):
            self._replays[False]()
        self._replays[is_reported]()

    def _prepare(self, drawn: Tensors) -> None:
        for name, values in drawn.items():
            self._drawn[name] = values.new_empty((self._max_steps, *values.shape[1:]))
            self._drawn[name][: len(values)].copy_(values)
            self._place = torch.zeros(1, dtype=torch.int64, device=values.device)
        for is_reported in (True, False):
            step = partial(self._step_in_place, is_reported)
            try:
                self._replays[is_reported] = self._capture(step)
            except RuntimeError as error:
                if is_out_of_memory(str(error)):
                    raise
                print(
                    f"CUDA graph capture failed, steps are launched one by one: {error}",
                    file=sys.stderr,
                    flush=True,
                )
                self._replays[is_reported] = step

    def _step_in_place(self, is_reported: bool) -> None:
        draw = {name: values.index_select(0, self._place)[0] for name, values in self._drawn.items()}
        self._step(draw, is_reported)
        self._place.add_(1)


def _num_steps(drawn: Tensors) -> int:
    return len(next(iter(drawn.values())))


def capture_on(device: torch.device) -> Capture:
    """How a step is captured: by CUDA, in graphs that share their memory since they never run at once.

    Elsewhere the step itself is repeated, the graph's eager twin: the same function on the same memory.
    """
    if device.type != "cuda":
        return lambda step: step
    pool = torch.cuda.graph_pool_handle()

    def capture(step: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # Another thread of the process may use CUDA meanwhile.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            step()
        replay: Callable[[], None] = graph.replay
        return replay

    return capture
