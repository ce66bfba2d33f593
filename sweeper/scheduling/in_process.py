"""Train packs one after the other in this process, so that a debugger reaches everything and no cluster is needed."""

import contextlib
import sys
import traceback
from bdb import BdbQuit
from collections.abc import Callable
from itertools import count

from sweeper.scheduling.pack_queue import PackQueue
from trainables.assignment import Assignment
from trainables.errors import damaged_runs, is_out_of_memory
from trainables.stopping import StopRequest, watching

LOOK_EVERY_S = 0.2
"""Seconds between checks for a request to stop."""


def work(queue: PackQueue, request: StopRequest, ask_to_stop: Callable[[], None]) -> None:
    """Train the packs of a queue until it is empty, it cannot record what happens, or the user asks to stop.

    Args:
        queue: Packs to train.
        request: Whether the user has asked to stop.
        ask_to_stop: Asks the pack that is training to write its states and end.

    Raises:
        KeyboardInterrupt: The user stopped at once, or quit the debugger.
    """
    from trainables import arithmetic

    with _passed_on(queue, request, ask_to_stop):
        try:
            for number in count(1):
                name = f"pack {number}"
                assignment = queue.hand_out(name)
                if not isinstance(assignment, Assignment):
                    return
                queue.started(name)
                _train(queue, name, assignment)
        finally:
            arithmetic.release_process()


def _train(queue: PackQueue, name: str, assignment: Assignment) -> None:
    from trainables.worker import PackWorker

    worker, error, is_stopped = None, "", False
    try:
        worker = PackWorker(assignment)
        while not queue.error:
            report = worker.step()
            queue.reported(name, report)
            if report.is_over:
                is_stopped = report.is_stopped
                break
        else:
            return  # the queue can no longer record anything
    except BdbQuit:
        raise KeyboardInterrupt from None
    except Exception:
        error = traceback.format_exc()
        if not is_out_of_memory(error) and not damaged_runs(error):
            print(error, file=sys.stderr)
    finally:
        if worker:
            worker.close()
    queue.ended(name, error, is_stopped)


def _passed_on(
    queue: PackQueue, request: StopRequest, ask_to_stop: Callable[[], None]
) -> contextlib.AbstractContextManager[None]:
    """Pass a request to stop on to the pack, which checks for it about every second, while the context is open."""

    def look() -> bool:
        if not request.is_asked:
            return False
        queue.is_stopping = True
        ask_to_stop()
        return True

    return watching(look, LOOK_EVERY_S)
