"""How the steps of a pack are launched: one by one, or as a CUDA graph that is captured once and replayed.

A step of these small networks is hundreds of short kernels, which Python launches more slowly than a GPU computes them.
A graph launches them all at once. Both ways call the same function, which reads nothing back from the device.

Shape suffix: T steps.
"""

import contextlib
import gc
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Literal

import torch

from trainables.errors import is_out_of_memory

Tensors = Mapping[str, torch.Tensor]

Step = Callable[[Tensors, bool], None]
"""One update of a pack, from its random inputs and whether it reports; changes only memory of the device."""

Launch = Literal["eager", "graph"]

WARM_UP_STEPS = 4
"""Steps before a capture: libraries load kernels and allocate workspaces on first use, which a capture forbids."""


def choose(device: torch.device, are_images_there: bool, launch: Launch | None) -> Launch:
    """How steps are launched: as a graph on CUDA, unless each step waits for images from the machine's memory.

    Args:
        device: Where the pack trains.
        are_images_there: Whether the device holds the data set.
        launch: The requested way; None for the best one.
    """
    if launch is not None:
        return launch
    return "graph" if device.type == "cuda" and are_images_there else "eager"


class Stepper(ABC):
    """Launches steps; it gets the step function on each call, since storing it would keep the pack alive."""

    @abstractmethod
    def run(self, step: Step, inputs: Tensors, is_reported: bool) -> None:
        """Launch as many steps as there are inputs for.

        Args:
            step: The step function, the same on every call.
            inputs: The random inputs of the steps, each (T, ...).
            is_reported: Whether the last one reports.
        """


class Eager(Stepper):
    """Launches each operation of each step from Python."""

    def run(self, step: Step, inputs: Tensors, is_reported: bool) -> None:
        """Launch steps; see `Stepper.run`."""
        num_steps = _num_steps(inputs)
        for t in range(num_steps):
            step({name: values[t] for name, values in inputs.items()}, is_reported and t == num_steps - 1)


Capture = Callable[[Callable[[], None]], Callable[[], None]]
"""Turns a function that does work on a device into one that repeats this work."""


class Graph(Stepper):
    """Replays a step that was captured once; the position in the random inputs is counted on the device.

    The first steps are launched one by one. If capturing fails, all are.

    Args:
        max_steps: Most steps whose inputs are generated at once.
        capture: How a step is captured, see `capture_on`.
    """

    def __init__(self, max_steps: int, capture: Capture) -> None:
        self._max_steps, self._capture = max_steps, capture
        self._num_warm = 0
        self._replays: dict[bool, Callable[[], None]] = {}
        self._inputs: dict[str, torch.Tensor] = {}

    def run(self, step: Step, inputs: Tensors, is_reported: bool) -> None:
        """Launch steps; see `Stepper.run`."""
        num_steps, first = _num_steps(inputs), 0
        while first < num_steps and self._num_warm < WARM_UP_STEPS:
            # Both kinds of step are warmed up; a step that need not report may do so.
            reports = self._num_warm % 2 == 0 or (is_reported and first == num_steps - 1)
            step({name: values[first] for name, values in inputs.items()}, reports)
            self._num_warm, first = self._num_warm + 1, first + 1
        if first == num_steps:
            return
        if not self._replays:
            self._prepare(step, inputs)
        for name, values_T in inputs.items():
            self._inputs[name][: num_steps - first].copy_(values_T[first:])
        self._place.zero_()
        for _ in range(first, num_steps - 1):
            self._replays[False]()
        self._replays[is_reported]()

    def _prepare(self, step: Step, inputs: Tensors) -> None:
        for name, values in inputs.items():
            self._inputs[name] = values.new_empty((self._max_steps, *values.shape[1:]))
            self._inputs[name][: len(values)].copy_(values)
            self._place = torch.zeros(1, dtype=torch.int64, device=values.device)
        works = {
            is_reported: partial(self._step_in_place, step, is_reported) for is_reported in (True, False)
        }
        try:
            self._replays = {is_reported: self._capture(work) for is_reported, work in works.items()}
        except RuntimeError as error:
            first = _first_error(error)  # if a capture fails midway, the last error is uninformative
            if is_out_of_memory(str(first)):
                raise first from None
            print(
                f"CUDA graph capture failed; launching steps one by one: {first}",
                file=sys.stderr,
                flush=True,
            )
            self._replays = dict(works)

    def _step_in_place(self, step: Step, is_reported: bool) -> None:
        found = {name: values.index_select(0, self._place)[0] for name, values in self._inputs.items()}
        step(found, is_reported)
        self._place.add_(1)


def _num_steps(inputs: Tensors) -> int:
    return len(next(iter(inputs.values())))


def _first_error(error: BaseException) -> BaseException:
    while error.__context__ is not None:
        error = error.__context__
    return error


def capture_on(device: torch.device) -> Capture:
    """The way to capture a step: by CUDA, in graphs that share memory since they never run at the same time.

    On other devices the step itself is repeated: the same function on the same memory.
    """
    if device.type != "cuda":
        return lambda step: step
    return partial(_capture, device, torch.cuda.graph_pool_handle())


_failed: list[torch.cuda.CUDAGraph] = []
"""Graphs whose capture failed: the allocator may still point at them."""


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _capture(device: torch.device, pool: Any, step: Callable[[], None]) -> Callable[[], None]:
    """Like `torch.cuda.graph`, which, if a capture fails, leaves the thread on its own stream and the pool open."""
    graph = torch.cuda.CUDAGraph()
    gc.collect()  # destroying a graph during a capture breaks the capture
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    gc.disable()
    try:
        with torch.cuda.stream(_capture_stream(device)):
            # Other threads of the process may use CUDA in the meantime.
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                step()
            finally:
                graph.capture_end()
    except BaseException:
        _failed.append(graph)
        for close in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
            with contextlib.suppress(Exception):
                getattr(torch._C, close)(torch.cuda.current_device(), pool)
        raise
    finally:
        gc.enable()
    replay: Callable[[], None] = graph.replay
    return replay
