"""Packs against separate processes when all cores are busy: on each core one run in ordinary modules, or one pack.

They take turns in the same processes, all at once: what they wait for is each other, as in a sweep.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

from benchmarks.machine import progress
from trainables import arithmetic

Makers = Sequence[tuple[str, int, Callable[[], Callable[[int], None]]]]
"""Name, number of runs, and what makes a function that trains for some steps; can be sent to another process."""


def rates(makers: Makers, num_processes: int, rounds: int, turn_s: float) -> dict[str, list[float]]:
    """Return the run-steps a second of all processes together, one value per round."""
    progress(f"{num_processes} processes at once")
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(num_processes)]
    processes = [context.Process(target=_serve, args=(theirs, makers, turn_s)) for _, theirs in pairs]
    for process in processes:
        process.start()
    ours = [mine for mine, _ in pairs]
    try:
        for each in ours:
            each.recv()  # it is ready
        found: dict[str, list[float]] = {name: [] for name, _, _ in makers}
        for number in range(rounds + 1):
            for name in found:
                for each in ours:
                    each.send(name)
                rate = sum(each.recv() for each in ours)
                if number:  # the first warms up
                    found[name].append(rate)
    finally:
        for each in ours:
            each.close()
        for process in processes:
            process.join()
    return found


def _serve(ours: Connection, makers: Makers, turn_s: float) -> None:
    arithmetic.set_arithmetic("fp32", 1)
    arithmetic.keep_freed_memory()
    made = {name: (num_runs, make()) for name, num_runs, make in makers}
    ours.send("ready")
    while True:
        try:
            num_runs, advance = made[ours.recv()]
        except EOFError:
            return
        num_steps, begun = 0, time.perf_counter()
        while (taken_s := time.perf_counter() - begun) < turn_s:
            advance(1)
            num_steps += 1
        ours.send(num_runs * num_steps / taken_s)
