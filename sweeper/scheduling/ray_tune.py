"""Train packs in a new Ray Tune experiment, as many at once as the machine holds; only this file of the sweeper uses Tune.

Tune's own state is never read again: everything committed is in the storage and the ledger, so Tune's folder is temporary.
"""

import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from sweeper.machines.resources import Machine, exact_share
from sweeper.scheduling.attempts import STOP_S
from sweeper.scheduling.pack_queue import FINISHED, PackQueue
from trainables.assignment import Assignment, Report
from trainables.stopping import StopRequest

LOOK_EVERY_S = 5.0
"""Seconds between checks whether Ray still has a node."""


def work(
    queue: PackQueue,
    request: StopRequest,
    ask_to_stop: Callable[[], None],
    machine: Machine,
    num_slots: int,
) -> None:
    """Train the packs of a queue until it is empty, it cannot record what happens, or the user asks to stop.

    Args:
        queue: Packs to train.
        request: Whether the user has asked to stop.
        ask_to_stop: Asks the packs that are training to write their states and end.
        machine: Where packs train, with the resources of each.
        num_slots: Packs that train at once.
    """
    from trainables.tune import PackTrainable

    scratch = tempfile.mkdtemp(prefix="sweeper-tune-")
    share = exact_share(machine.gpus_per_pack or 0.0)
    tuner = tune.Tuner(
        tune.with_resources(PackTrainable, {"cpu": machine.threads, "gpu": share}),
        tune_config=tune.TuneConfig(
            search_alg=PackSearcher(queue), num_samples=-1, max_concurrent_trials=num_slots, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="packs",
            storage_path=scratch,
            callbacks=[BlockListener(queue)],
            stop=StopEarly(queue, request, ask_to_stop, STOP_S),
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    # The queue records failures and the driver shows them; Tune would print each traceback twice.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class PackSearcher(Searcher):
    """The searcher of the Tune experiment, in which each pack of a queue is a trial."""

    def __init__(self, queue: PackQueue) -> None:
        super().__init__(metric=None, mode=None)
        self._queue = queue

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next pack, None while a running pack may come back, Tune's own `FINISHED` at the end."""
        given = self._queue.hand_out(trial_id)
        if given == FINISHED:
            return str(Searcher.FINISHED)
        return {"assignment": given} if isinstance(given, Assignment) else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: `BlockListener` receives the error, too."""

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty state: Tune pickles its arguments into its own folder, which a new launch never reads."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a new launch plans from the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing, see `save`."""


class BlockListener(Callback):
    """Tells the queue which blocks were committed and how trials end; never raises, never uses the network."""

    def __init__(self, queue: PackQueue) -> None:
        self._queue = queue

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty state, see `PackSearcher.__getstate__`."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Tell the queue that a worker has started a trial."""
        self._queue.started(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any
    ) -> None:
        """Tell the queue that a training iteration, which is one block, is over."""
        report = Report(**{field.name: result[field.name] for field in fields(Report)})
        self._queue.reported(trial.trial_id, report)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Tell the queue that a trial is done."""
        self._queue.ended(trial.trial_id, "", is_stopped=trial.last_result.get("is_stopped", False))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Tell the queue that a trial failed."""
        self._queue.ended(trial.trial_id, _error_text(trial))


class StopEarly(Stopper):
    """Ends the experiment once the ledger cannot be written, no node is left, or the user asks to stop.

    Packs are asked to write their states and end; Tune itself would kill them in the middle of a block.

    Args:
        queue: Queue of the packs.
        request: Whether the user has asked to stop.
        ask_to_stop: Asks the packs that are training to stop.
        patience_s: Longest time that they may take.
    """

    def __init__(
        self, queue: PackQueue, request: StopRequest, ask_to_stop: Callable[[], None], patience_s: float
    ) -> None:
        self._queue, self._request = queue, request
        self._ask_to_stop, self._patience_s = ask_to_stop, patience_s
        self._looked_s = time.monotonic()
        self._asked_s: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty state, see `PackSearcher.__getstate__`."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: no trial is stopped individually."""
        return False

    def stop_all(self) -> bool:
        """Return whether to end all trials at once, whatever they are doing."""
        now_s, is_asked = time.monotonic(), self._request.is_asked
        if not is_asked and now_s - self._looked_s > LOOK_EVERY_S:
            self._looked_s = now_s
            # Tune would wait forever for room on nodes that are gone.
            if not any(node["Alive"] for node in ray.nodes()):
                self._queue.error = self._queue.error or OSError("every node of the Ray cluster is gone")
                return True
        if not is_asked and self._queue.error is None:
            return False
        if self._asked_s is None:
            self._asked_s, self._queue.is_stopping = now_s, True
            self._ask_to_stop()
        return not self._queue.has_live or now_s - self._asked_s > self._patience_s


def _error_text(trial: Any) -> str:
    # The text file, since the pickled error beside it may hold classes that only the worker can import.
    try:
        return Path(trial.error_file).read_text()
    except (OSError, TypeError):
        return "unknown error"
