"""The one Ray Tune searcher: hands out packs, takes back those that failed, ends when none is left.

Tune calls it from its own loop, where an exception would abort the sweep: whatever goes wrong is kept in `error`,
and nothing more is handed out.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import ray
from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from sweeper.scheduling.packing import PackPlan
from trainables.errors import damaged_runs, is_out_of_memory

LOOK_EVERY_S = 5.0
"""How often Ray is asked whether a node is left."""

MAX_FAILURES = 3
"""Tries without a new state to resume from after which the runs of a pack are given up."""

Begin = Callable[[PackPlan], tuple[int, PackPlan, dict[str, Any]] | None]
"""Begins an attempt at what is left of a pack: its number, what is left, the trainable's configuration."""


class PackQueue(Searcher):
    """Packs in order, each as one trial.

    Args:
        packs: What to train.
        begin: See `Begin`.
        give_up: Told the pack, attempt and error of runs that are not tried again.
        end: Told the attempt, an outcome and an error text whenever an attempt is over.
    """

    def __init__(
        self,
        packs: Iterable[PackPlan],
        begin: Begin,
        give_up: Callable[[PackPlan, int, str, str], None],
        end: Callable[[int, str, str], None],
    ) -> None:
        super().__init__(metric=None, mode=None)
        self._waiting = deque(packs)
        self._live: dict[str, tuple[int, PackPlan]] = {}
        self._moved: set[str] = set()
        self._started: set[str] = set()
        self._begin, self._give_up, self._end = begin, give_up, end
        self.error: Exception | None = None
        self.is_stopping = False

    @property
    def has_live(self) -> bool:
        """Whether a worker has a pack; one that waits for a node has nothing to lose."""
        return bool(self._started & set(self._live))

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next pack, None while one that runs may come back, `FINISHED` at the end."""
        while self._waiting and not self.error and not self.is_stopping:
            try:
                begun = self._begin(self._waiting.popleft())
            except Exception as error:
                self.error = error
                break
            if begun:
                number, pack, config = begun
                self._live[trial_id] = number, pack
                return config
        return None if self._live else Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Wait for `ended`, which knows the error too."""

    def started(self, trial_id: str) -> None:
        """A worker has taken on this trial's pack."""
        self._started.add(trial_id)

    def moved(self, trial_id: str) -> None:
        """States of this trial became true, which the next one goes on from: its failures so far are forgiven."""
        self._moved.add(trial_id)

    def ended(self, trial_id: str, error: str, is_stopped: bool = False) -> None:
        """A trial is over.

        Args:
            trial_id: Tune's name of it.
            error: Of the worker; empty where the pack has reached the end, or was stopped.
            is_stopped: Whether it was asked to stop before the end.
        """
        if trial_id not in self._live:
            return
        number, pack = self._live.pop(trial_id)
        try:
            is_moved = trial_id in self._moved
            is_again = not is_moved and pack.num_failures > 0
            if is_stopped or (error and self.is_stopping):
                self._end(number, "failed" if error else "stopped", error)
            elif not error:
                self._end(number, "done", "")
                # An attempt that was fenced off ends early; `begin` passes over a pack that is whole.
                if pack.num_failures < MAX_FAILURES:
                    self._waiting.append(pack.failed_again())
            elif damaged := damaged_runs(error) & {run.key for run in pack.runs}:
                self._end(number, "failed", error)
                self._waiting.extendleft(pack.without(damaged))
            elif is_out_of_memory(error) and not pack.is_smallest:
                self._end(number, "out of memory", error)
                self._waiting.extendleft(pack.halves())
            elif is_again and len(pack.runs) > 1:
                # Whatever it is that a pack dies of again, half of it may live.
                self._end(number, "failed", error)
                self._waiting.extendleft(pack.split())
            else:
                self._retry(number, pack.forgiven() if is_moved else pack.failed_again(), error)
        except Exception as problem:
            self.error = problem

    def _retry(self, number: int, pack: PackPlan, error: str) -> None:
        self._end(number, "failed", error)
        if pack.num_failures < MAX_FAILURES:
            self._waiting.append(pack)
        else:
            self._give_up(pack, number, "out of memory" if is_out_of_memory(error) else "error", error)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given into its own folder, and a new launch never reads that."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a new launch plans anew from the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see `save`."""


class BlockListener(Callback):
    """Tells the ledger which block became true; never raises, never touches the network.

    Args:
        queue: Told how trials end.
        take: Takes the block of a result into the ledger, and says whether it is true.
    """

    def __init__(self, queue: PackQueue, take: Callable[[dict[str, Any]], bool]) -> None:
        self._queue, self._take = queue, take

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, see `PackQueue.__getstate__`."""
        return {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Tune's word that a training iteration is over; one that was stopped may have no block."""
        try:
            if result["manifest"] and self._take(result) and result["has_states"]:
                self._queue.moved(trial.trial_id)
        except Exception as error:
            self._queue.error = self._queue.error or error

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Tune's word that a worker has a trial."""
        self._queue.started(trial.trial_id)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Tune's word that a trial is done."""
        self._queue.ended(trial.trial_id, "", is_stopped=trial.last_result.get("is_stopped", False))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Tune's word that a trial failed."""
        self._queue.ended(trial.trial_id, _error_text(trial))


class StopEarly(Stopper):
    """Ends the experiment once the ledger cannot be written, no node is left, or the user asks for it.

    Packs are asked to write their states and end; Tune's own way kills them in the middle of a block.

    Args:
        queue: Whose packs they are.
        ask: Asks the packs that are trained to stop.
        patience_s: How long they may take.

    Attributes:
        is_asked: Set by the user's signal.
    """

    def __init__(self, queue: PackQueue, ask: Callable[[], None], patience_s: float) -> None:
        self._queue, self._ask, self._patience_s = queue, ask, patience_s
        self._looked_s = time.monotonic()
        self._asked_s: float | None = None
        self.is_asked = False

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, see `PackQueue.__getstate__`."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped by itself."""
        return False

    def stop_all(self) -> bool:
        """Whether to end all trials at once, whatever they are doing."""
        now_s = time.monotonic()
        if not self.is_asked and now_s - self._looked_s > LOOK_EVERY_S:
            self._looked_s = now_s
            # Tune would wait for ever for room on nodes that are gone.
            if not any(node["Alive"] for node in ray.nodes()):
                self._queue.error = self._queue.error or OSError("every node of the Ray cluster is gone")
                return True
        if not self.is_asked and self._queue.error is None:
            return False
        if self._asked_s is None:
            self._asked_s, self._queue.is_stopping = now_s, True
            self._ask()
        return not self._queue.has_live or now_s - self._asked_s > self._patience_s


def _error_text(trial: Any) -> str:
    # The text file, since the pickled error beside it may hold classes that only the worker can import.
    try:
        return Path(trial.error_file).read_text()
    except (OSError, TypeError):
        return "unknown error"
