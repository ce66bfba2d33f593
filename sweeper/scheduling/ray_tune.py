"""Train packs in a new Ray Tune experiment, as many at once as the machine holds; only this file of the sweeper uses Tune.

Tune's own state is never read again: everything committed is in the storage and the ledger, so Tune's folder is temporary.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from sweeper.machines import clusters
from sweeper.machines.resources import Machine, exact_share
from sweeper.scheduling.attempts import STOP_S
from sweeper.scheduling.pack_queue import FINISHED, PackQueue
from trainables.assignment import Assignment, Report
from trainables.errors import unusable_gpu
from trainables.stopping import STOPPED, StopRequest, watching

LOOK_EVERY_S = 1.0
"""Seconds between checks whether Ray is still there."""

GONE_S = 15.0
"""Longest time for which Ray may not answer; some clusters restart their head."""

VAIN_S = 3.0
"""Longest time for Tune to end once Ray is gone."""

MAX_AT_ONCE = 10_000
"""Most packs at once for Tune, which counts them once; the searcher knows how many there is room for."""

GONE = "every node of the Ray cluster is gone"


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

    scratch = tempfile.mkdtemp(
        prefix="sweeper-tune-", dir=clusters.folder() if machine.address is None else None
    )
    share = exact_share(machine.gpus_per_pack or 0.0)
    tuner = tune.Tuner(
        tune.with_resources(PackTrainable, {"cpu": machine.threads, "gpu": share}),
        tune_config=tune.TuneConfig(
            search_alg=PackSearcher(queue, clusters.Slots(machine, num_slots)),
            num_samples=-1,
            max_concurrent_trials=MAX_AT_ONCE,
            reuse_actors=True,
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
        with _not_waiting_in_vain(request):
            tuner.fit()
    except KeyboardInterrupt:
        if not queue.error:
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _not_waiting_in_vain(request: StopRequest) -> AbstractContextManager[None]:
    """In this context, end this process if Ray is gone and Tune waits for it, where no signal and no exception reaches it.

    Ray itself would abort it after a minute. What is open in the ledger then is ended by the next command.
    """
    seen_s = time.monotonic()

    def look() -> bool:
        nonlocal seen_s
        if clusters.is_there():
            seen_s = time.monotonic()
        elif time.monotonic() - seen_s > VAIN_S + (0 if request.is_asked else GONE_S):
            code, words = (130, STOPPED) if request.is_asked else (3, f"Error: {GONE}.\n{STOPPED}")
            print(words, file=sys.stderr, flush=True)
            os._exit(code)
        return False

    return watching(look, LOOK_EVERY_S)


class PackSearcher(Searcher):
    """The searcher of the Tune experiment, in which each pack of a queue is a trial.

    Args:
        queue: Packs to train.
        num_slots: Says how many packs may be handed out at the moment.
    """

    def __init__(self, queue: PackQueue, num_slots: Callable[[], int]) -> None:
        super().__init__(metric=None, mode=None)
        self._queue, self._num_slots = queue, num_slots

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the next pack, None while there is no room or a running pack may come back, Tune's own `FINISHED` at the end."""
        if self._queue.num_live >= self._num_slots():
            return None
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
        self._sigusr1 = signal.getsignal(signal.SIGUSR1)

    def setup(self, **_: Any) -> None:
        """Take SIGUSR1 back from Tune, which would end all trials at once and say nothing."""
        signal.signal(signal.SIGUSR1, self._sigusr1)

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
        """Tell the queue that a trial failed; a GPU that torch cannot use fails every trial, so it ends all of them."""
        text = _error_text(trial)
        self._queue.ended(trial.trial_id, text)
        if problem := unusable_gpu(text):
            self._queue.error = self._queue.error or OSError(problem)


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
        self._looked_s = self._seen_s = time.monotonic()
        self._asked_s: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty state, see `PackSearcher.__getstate__`."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: no trial is stopped individually."""
        return False

    def stop_all(self) -> bool:
        """Return whether to end all trials at once, whatever they are doing.

        Raises:
            KeyboardInterrupt: Ray is gone: Tune would first wait for a minute for it, and ends at once only for this.
        """
        now_s, is_asked = time.monotonic(), self._request.is_asked
        if now_s - self._looked_s > LOOK_EVERY_S:
            self._looked_s = now_s
            self._look(now_s)
        if not is_asked and self._queue.error is None:
            return False
        if self._asked_s is None:
            self._asked_s, self._queue.is_stopping = now_s, True
            self._ask_to_stop()
        return not self._queue.has_live or now_s - self._asked_s > self._patience_s

    def _look(self, now_s: float) -> None:
        if clusters.is_there():
            self._seen_s = now_s
            # Tune would wait forever for room on nodes that are gone.
            is_gone = not any(node["Alive"] for node in ray.nodes())
        else:
            is_gone = self._request.is_asked or now_s - self._seen_s > GONE_S
        if is_gone:
            if not self._request.is_asked:
                self._queue.error = self._queue.error or OSError(GONE)
            raise KeyboardInterrupt


def _error_text(trial: Any) -> str:
    # The text file, since the pickled error beside it may hold classes that only the worker can import.
    try:
        return Path(trial.error_file).read_text()
    except (OSError, TypeError):
        return "unknown error"
