"""Train packs to their end, in workers of Ray or in this process; see `ray_tune` and `in_process`."""

from collections.abc import Sequence

from sweeper.ledger.writer import Ledger
from sweeper.machines.resources import Machine
from sweeper.scheduling.attempts import LedgerAttempts, Progress
from sweeper.scheduling.pack_queue import PackQueue
from sweeper.scheduling.packing import PackPlan
from trainables.stopping import StopRequest


def train(
    ledger: Ledger, packs: Sequence[PackPlan], machine: Machine, num_slots: int, progress: Progress
) -> None:
    """Train packs to their horizon; return when each has ended or was given up.

    Raises:
        OSError: The ledger or the storage could not be written; running packs were stopped.
        KeyboardInterrupt: The user asked to stop; committed work is kept.
    """
    attempts = LedgerAttempts(ledger, machine, progress, packs)
    queue, request = PackQueue(packs, attempts), StopRequest()
    try:
        with request.by_signals():
            if machine.ray is False:
                from sweeper.scheduling import in_process

                in_process.work(queue, request, attempts.ask_to_stop)
            else:
                from sweeper.scheduling import ray_tune

                ray_tune.work(queue, request, attempts.ask_to_stop, machine, num_slots)
    finally:
        attempts.close()
    if queue.error:
        raise queue.error
    if request.is_asked:
        raise KeyboardInterrupt
