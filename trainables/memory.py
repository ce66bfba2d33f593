"""Memory that a pack needs on a CPU, computed from its configuration before any of it is allocated.

A model is built and updated once on torch's `meta` device, whose tensors have shapes but no values, while the bytes of those that live are
counted. Libraries, images and copies inside kernels are not counted, so a pack needs somewhat more.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainables import config, contracts, engine, kernels
from trainables.config import Config, Value
from trainables.engine import ResolvedRun
from trainables.errors import InputError
from trainables.random_inputs import ImageBatch, Integers, Normal, Permutations, RandomInput, Uniform

GIB = 2**30
META = torch.device("meta")

PAPER_BYTES = 256 * 2**20
"""More than any of the papers' configurations needs for one run on 64 x 64 images."""

PAPER_PIXELS = 64 * 64

RANDOM_WORD_BYTES = 48
"""For each random word of a step, while it is generated: rounds on 64 bits, and the number that it becomes."""

STRIDE = 64
"""A field is first tried at so many times its default, then at the square of this, and so on: networks may have a billion layers."""


def check(run: ResolvedRun, num_runs: int, room_bytes: float | None = None) -> None:
    """Refuse a pack that the memory of this machine cannot hold.

    Args:
        run: One of its runs.
        num_runs: Number of its runs.
        room_bytes: Memory that it may use, by default what is available.

    Raises:
        InputError: It does not fit; the message names the fields to change.
    """
    room = available_bytes() if room_bytes is None else room_bytes
    default = contracts.model(run.spec.model).Config()
    if num_runs * _bound(run, default) <= room:
        return
    large = {name: value for name, value in _wholes(run.config).items() if value > _whole(default, name)}
    for capped in _growing(run.config, default, large):
        needed = num_runs * _bytes(run, capped)
        if needed > room:
            raise _refusal(run, capped, default, num_runs, room)


def available_bytes() -> float:
    """Memory that a process can still get on this machine, within the limit of its container; infinite if unknown."""
    found = [math.inf]
    with suppress(OSError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    with suppress(OSError, ValueError):  # no cgroup, or no limit ("max")
        folder = Path("/sys/fs/cgroup")
        limit = int((folder / "memory.max").read_text())
        used = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        found.append(limit - float(used["anon"]))
    return min(found)


def _bound(run: ResolvedRun, default: Config) -> float:
    """More than one run needs, without building it: no field and no side of an image counts more than quadratically."""
    growth = max(1.0, math.prod(run.source.shape) / PAPER_PIXELS)
    for name, value in _wholes(run.config).items():
        growth *= max(1.0, value / max(1, _whole(default, name))) ** 2
    return PAPER_BYTES * growth


def _wholes(settings: Config) -> dict[str, int]:
    return {name: value for name, value in config.flatten(settings).items() if type(value) is int}


def _whole(settings: Config, name: str) -> int:
    return _wholes(settings).get(name, 1)


def _growing(settings: Config, default: Config, large: dict[str, int]) -> Iterator[Config]:
    """The configuration with its large fields limited to more and more, at last as it is."""
    limit = STRIDE
    while True:
        limited: dict[str, Value] = {
            name: min(value, limit * max(1, _whole(default, name))) for name, value in large.items()
        }
        yield config.replace(settings, limited)
        if limited == large:
            return
        limit *= STRIDE


def _refusal(run: ResolvedRun, settings: Config, default: Config, num_runs: int, room: float) -> InputError:
    """The error for a pack that does not fit; it names the fewest fields that make it fit, those first that save most."""

    def needed(changes: dict[str, int]) -> float:
        return num_runs * _bytes(run, config.replace(settings, changes))

    values = _wholes(settings)
    defaults = {
        name: _whole(default, name) for name, value in values.items() if value > _whole(default, name)
    }
    changes: dict[str, int] = {}
    for name in sorted(defaults, key=lambda name: needed({name: defaults[name]})):
        changes[name] = defaults[name]
        if needed(changes) <= room:
            break
    if not changes or needed(changes) > room:
        what = f"{run.spec.model} on {run.spec.data}"
        remedy = "Use fewer seeds, smaller networks or batches, or a larger machine."
    else:
        what = " ".join(f"{name}={_wholes(run.config)[name]}" for name in changes)
        last = [*changes][-1]
        changes[last] = values[last]
        while (now := needed(changes)) > room:
            changes[last] = max(defaults[last], _power_of_two(changes[last] * min(room / now, 0.5)))
        remedy = (
            f"Use smaller ones, for example {' '.join(f'{name}={value}' for name, value in changes.items())}."
        )
    size = "a run" if num_runs == 1 else f"a pack of {num_runs} such runs"
    return InputError(
        f"{what}: {size} would need {needed({}) / GIB:,.0f} GiB of memory or more; {room / GIB:,.1f} GiB are free.\n{remedy}"
    )


def _power_of_two(value: float) -> int:
    """The largest power of two up to a value of at least 1."""
    return 1 << (int(value).bit_length() - 1)


def _bytes(run: ResolvedRun, settings: Config) -> float:
    """Bytes that one run with this configuration needs at most at once; 0 if its model cannot be computed with shapes alone."""
    try:
        with kernels.using(META, "one_by_one", "masked"), _Peak() as counted:
            words = _try_a_step(run, settings)
    except (RuntimeError, TypeError, OverflowError) as error:
        return math.inf if "overflow" in str(error).lower() else 0.0
    return counted.peak + RANDOM_WORD_BYTES * words


def _try_a_step(run: ResolvedRun, settings: Config) -> int:
    """Build a model of one run without values, update it, and decode a traversal; return the random words of a step."""

    def uniform(_: str, count: int) -> torch.Tensor:
        return torch.empty((1, count), device=META)

    shape = run.source.shape
    model = contracts.model(run.spec.model).Model([settings], shape, uniform, META)
    kinds = model.random_inputs()
    inputs = {name: _input(kind, shape) for name, kind in kinds.items()}
    model.update(inputs, torch.ones(1, dtype=torch.bool, device=META), is_reported=True)
    with torch.no_grad():
        latent, num_values = model.traversal_DV.shape
        model.decode(torch.empty((1, latent * num_values, latent), device=META))
    return sum(map(engine.num_words, kinds.values()))


def _input(kind: RandomInput, image: tuple[int, int, int]) -> torch.Tensor:
    match kind:
        case ImageBatch(size):
            return torch.empty((1, size, *image), device=META)
        case Normal(shape) | Uniform(shape):
            return torch.empty((1, *shape), device=META)
        case Integers(_, count):
            return torch.empty((1, count), dtype=torch.int64, device=META)
        case Permutations(count, size):
            return torch.empty((1, count, size), dtype=torch.int64, device=META)


class _Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that live.

    Attributes:
        peak: The most at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._living: set[int] = set()

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute an operation, and count what it returns."""
        found = function(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, torch.Tensor):
                self._count(each.untyped_storage())
        return found

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._living:  # a view
            return
        self._living.add(storage._cdata)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, storage: int, num_bytes: int) -> None:
        self._living.discard(storage)
        self._now -= num_bytes
