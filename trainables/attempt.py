"""One try at a pack: restore it, train block by block, and collect what each block commits.

Points fall on steps fixed by the schedule and states are exact, so block boundaries do not change any number.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainables import __version__, blocks, config, contracts, evaluation, numerics, scoring
from trainables.blocks import Manifest, Point, RunEntry, Status
from trainables.config import Schedule, StoredSpec
from trainables.encoding import Encoding
from trainables.engine import Pack, ResolvedRun
from trainables.images import Images
from trainables.metric_identity import identities
from trainables.provenance import provenance


@dataclass(frozen=True)
class Start:
    """Where a pack begins: a step and the state of each run at that step, none at step 0."""

    step: int = 0
    states: tuple[Mapping[str, np.ndarray], ...] = ()


@dataclass(frozen=True)
class Block:
    """What `blocks.write_block` commits: a manifest and bytes of runs."""

    manifest: Manifest
    blobs: Mapping[str, Mapping[str, bytes]]


class Blobs(Mapping[str, Mapping[str, bytes]]):
    """Bytes of runs at the current step, made on demand: all of them together are gigabytes at paper scale.

    Once the pack has moved on, access raises a RuntimeError, since the bytes would not match the manifest.

    Args:
        pack: The pack of the runs.
        runs: Key and index in the pack of each run that has bytes.
        kept: What is kept of each run of the pack, if they end here.
    """

    def __init__(
        self, pack: Pack, runs: Mapping[str, int], kept: Sequence[Mapping[str, bytes]] | None
    ) -> None:
        self._pack, self._runs, self._kept = pack, runs, kept
        self._step = pack.step

    def __getitem__(self, key: str) -> Mapping[str, bytes]:
        r = self._runs[key]
        if self._pack.step != self._step:
            raise RuntimeError(
                f"The pack is at step {self._pack.step}; its states at step {self._step} are gone."
            )
        state = {blocks.STATE: blocks.pack_arrays(self._pack.state(r))}
        return {**state, **(self._kept[r] if self._kept else {})}

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)


class Attempt:
    """A numbered try at a pack.

    Args:
        number: From 1; fences off older attempts.
        runs: The runs of the pack, sharing a static key.
        schedule: When to report, evaluate and end.
        images: The data set, on the device to train on.
        start: Where to resume from.
        size: Runs that the pack computes, ghosts included; by default the smallest size that the device supports.
    """

    def __init__(
        self,
        number: int,
        runs: Sequence[ResolvedRun],
        schedule: Schedule,
        images: Images,
        start: Start | None = None,
        size: int | None = None,
    ) -> None:
        self.number, self.schedule = number, schedule
        self.pack = Pack(runs, images, size)
        if start and start.step:
            self.pack.restore(start.step, start.states)
        precision = self.pack.runs[0].spec.precision
        self._numerics = numerics.numerics_class(self.pack.device, precision, len(self.pack.seeds))
        self._is_open = [bad is None for bad in self.pack.first_bad_steps()]
        self._num_blocks = 0
        self._steps_per_s = 1.0
        contracts.check_metrics(schedule.metrics)
        self._num_images = len(evaluation.evaluation_rows(len(images)))
        self._encoded_step: int | None = None
        self._encoded: list[Encoding] = []

    @property
    def is_done(self) -> bool:
        """Whether every run has ended."""
        return not any(self._is_open)

    def work(
        self,
        seconds: float,
        is_state_due: Callable[[float], bool] = lambda _: True,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> Block:
        """Train for about this many seconds, or to the end; at least one step.

        Args:
            seconds: Training time.
            is_state_due: Whether a block of this many seconds carries states of unfinished runs.
            is_stopping: Called about every second: whether to end the block now.
        """
        begun, start_step = time.perf_counter(), self.pack.step
        points: list[Point] = []
        while True:
            stride = max(1, int(self._steps_per_s * min(1.0, seconds)))
            event = self.schedule.next_event(self.pack.step)
            self._advance(min(event, self.pack.step + stride))
            if self.pack.step == event:
                points += self._points()
            is_over = self.pack.step >= self.schedule.steps or None not in self.pack.first_bad_steps()
            if is_over or time.perf_counter() - begun >= seconds or is_stopping():
                taken_s = time.perf_counter() - begun
                return self._close(start_step, points, taken_s, is_state_due(taken_s))

    def _advance(self, step: int) -> None:
        begun, num_steps = time.perf_counter(), step - self.pack.step
        self.pack.advance(num_steps)
        if self.pack.device.type == "cuda":
            torch.cuda.synchronize(self.pack.device)
        self._steps_per_s = num_steps / (time.perf_counter() - begun)

    def _points(self) -> list[Point]:
        step, schedule = self.pack.step, self.schedule
        values: list[dict[str, float]] = [{} for _ in self.pack.runs]
        if step % schedule.report_every == 0 or step == schedule.steps:
            for value, statistics in zip(values, self.pack.statistics(), strict=True):
                value.update({f"train/{name}": number for name, number in statistics.items()})
        if step % schedule.evaluate_every == 0 or step == schedule.steps:
            for value, scores in zip(values, self.scores(), strict=True):
                value.update(scores)
        now = time.time()
        bad = self.pack.first_bad_steps()
        return [
            Point(run.key, step, now, name, number)
            for r, run in enumerate(self.pack.runs)
            if self._is_open[r] and bad[r] is None
            for name, number in values[r].items()
        ]

    def scores(self) -> list[dict[str, float]]:
        """Metrics of each run at the current step."""
        return [scoring.scores(encoding, self.schedule.metrics) for encoding in self._encodings()]

    def _encodings(self) -> list[Encoding]:
        """Encodings of the runs at the current step, made once per step since they cost more than training."""
        if self._encoded_step != self.pack.step:
            self._encoded_step, self._encoded = self.pack.step, evaluation.encodings(self.pack)
        return self._encoded

    def _close(self, start_step: int, points: list[Point], seconds: float, has_states: bool) -> Block:
        entries, blobs = self._account_for_runs(has_states)
        manifest = Manifest(
            attempt=self.number,
            index=self._num_blocks,
            start_step=start_step,
            end_step=self.pack.step,
            numerics=self._numerics,
            code_version=__version__,
            written_at_s=time.time(),
            train_s=seconds,
            runs=entries,
            points=tuple(points),
            metric_identities=identities({point.name for point in points}, self._num_images),
            provenance=provenance(self.pack.launch),
        )
        self._num_blocks += 1
        return Block(manifest, blobs)

    def _account_for_runs(self, has_states: bool) -> tuple[tuple[RunEntry, ...], "Blobs"]:
        """Close the runs that end here; returns the entry of each run that was open, and its bytes, if due."""
        is_end = self.pack.step >= self.schedule.steps
        kept = self._kept() if is_end else None
        entries: list[RunEntry] = []
        with_blobs: dict[str, int] = {}
        ends: Status = "done" if is_end else "running"
        for r, (run, bad) in enumerate(zip(self.pack.runs, self.pack.first_bad_steps(), strict=True)):
            if not self._is_open[r]:
                continue
            status: Status = ends if bad is None else "diverged"
            step = self.pack.step if bad is None else bad
            horizon, spec = self.schedule.steps, stored_spec(run)
            entries.append(RunEntry(run.key, run.spec.seed, status, step, horizon, spec, bad))
            if bad is None and (is_end or has_states):
                with_blobs[run.key] = r
            self._is_open[r] = status == "running"
        return tuple(entries), Blobs(self.pack, with_blobs, kept)

    def _kept(self) -> list[dict[str, bytes]]:
        """What is kept of each run when it ends."""
        parts = zip(self._encodings(), self.pack.weights(), evaluation.pictures(self.pack), strict=True)
        return [
            {
                "encoding": encoding.to_bytes(),
                "weights": blocks.pack_arrays(weights),
                "pictures": blocks.pack_arrays(pictures),
            }
            for encoding, weights, pictures in parts
        ]


def stored_spec(run: ResolvedRun) -> StoredSpec:
    """The specification of a run as a ledger keeps it: with every field of the configuration filled in."""
    spec = run.spec
    return StoredSpec(
        model=spec.model,
        data=spec.data,
        fields=config.flatten(run.config),
        seed=spec.seed,
        precision=spec.precision,
        recipe=run.source.recipe,
    )
