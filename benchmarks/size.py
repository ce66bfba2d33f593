"""What commands cost in a home with many finished runs: `python -m benchmarks.size [--runs 10000] [--out FILE] [--keep FOLDER]`.

The home is made by the writers that training uses: a sweep is planned and registered, and blocks are committed and taken in, with values of
a closed form in the place of trained ones. Each command then runs in a process of its own; before the run that has nothing to do, everything
is marked as delivered to MLflow, which takes twenty minutes to take it. Seconds are from its start to its end, memory is the most
that the process, without its children, had resident.
"""

import argparse
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.gpu.kit import save
from sweeper.home import Home
from sweeper.ledger.reader import Records
from sweeper.ledger.writer import Ledger, Member
from sweeper.machines.probe import Probe
from sweeper.scheduling.plan import Planned, find_question, plan
from sweeper.tracking.outline import outline
from sweeper.tracking.process import delivery_record, store_uri
from sweeper.tracking.sync_state import Deliveries, Delivery
from trainables import __version__
from trainables.blocks import Manifest, Point, RunEntry, write_block
from trainables.metric_identity import identities

NAME, SCALE = "factorvae_gamma", "laptop"
METRICS = (
    *("recon_error", "factor_vae_score", "recon_mse", "kl", "active_dims"),
    *("gaussian_tc", "mig", "sap", "modularity", "explicitness"),
)
NUM_EVALUATIONS = 10
NUM_IMAGES = 1536
PACK = 25
NOTHING_TO_DO = "run, nothing to do"
MIB = 2**20


def seeds_of(num_runs: int) -> range:
    """Return the seeds with which the sweep has at least so many runs."""
    return range(math.ceil(num_runs / len(list(find_question(NAME, SCALE).scale.draws()))))


def make(home: Home, num_runs: int) -> float:
    """Fill a home with finished runs of one sweep; return the seconds that the ledger's writer took for them."""
    with Ledger(home.ledger, home.storage) as ledger, Probe() as probe:
        (planned,) = plan([find_question(NAME, SCALE, tuple(seeds_of(num_runs)))], probe, None)
        begun = time.perf_counter()
        planned.register(ledger)
        members = planned.members
        for first in range(0, len(members), PACK):
            _commit(ledger, planned, members[first : first + PACK])
            if first % 1000 == 0:
                machine.progress(f"{min(first + PACK, len(members)):,} of {len(members):,} runs")
        return time.perf_counter() - begun


def _commit(ledger: Ledger, planned: Planned, members: Sequence[Member]) -> None:
    number = ledger.begin_attempt([member.key for member in members])
    points = tuple(point for member in members for point in _points(planned, member))
    end = members[0].horizon_steps
    manifest = Manifest(
        attempt=number,
        index=0,
        start_step=0,
        end_step=end,
        numerics="made by benchmarks.size",
        code_version=__version__,
        written_at_s=1e9 + number,
        train_s=1.0,
        runs=tuple(RunEntry(member.key, member.seed, "done", end, end, member.spec) for member in members),
        points=points,
        metric_identities=identities(METRICS, NUM_IMAGES),
        provenance={"host": "none", "pid": "0"},
    )
    ledger.take(write_block(ledger.storage, manifest, {}))
    ledger.end_attempt(number, "done")


def _points(planned: Planned, member: Member) -> Iterator[Point]:
    """The points of a run: smooth in the step, and scattered by the seed."""
    every = planned.question.scale.evaluate_every
    weight = planned.runs[member.key].spec["fields"]["gamma"]
    assert isinstance(weight, float)
    for step in range(every, NUM_EVALUATIONS * every + 1, every):
        for number, name in enumerate(METRICS):
            scatter = math.sin(12.9898 * member.seed + 78.233 * number + weight) * 0.1
            value = 0.5 + scatter + 0.3 * math.exp(-step / 4000) + 0.001 * weight
            yield Point(member.key, step, 1e9 + step, name, value)


def commands(num_seeds: int, folder: Path) -> dict[str, list[str]]:
    """The command lines to time, by a short name, but for their home."""
    sweep = [NAME, "--scale", SCALE]
    return {
        "status": ["status"],
        "status of the sweep": ["status", *sweep],
        "pareto": ["pareto", *sweep, "--csv", f"{folder}/front.csv"],
        "export": ["export", *sweep, "--runs", f"{folder}/runs.csv"],
        "plan": ["plan", *sweep, "--seeds", f"0-{num_seeds - 1}"],
        "sync": ["sync", *sweep],
        NOTHING_TO_DO: ["run", *sweep, "--seeds", f"0-{num_seeds - 1}"],
    }


def deliver_in_word_only(words: Sequence[str], home: Home) -> None:
    """Run a command that delivers nothing to MLflow, then mark everything as delivered there."""
    program = (
        "import sys; from sweeper import pipeline; from sweeper.cli.app import main;"
        " pipeline.DELIVERY_S = 0.0; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, *words, "--home", str(home.path)]
    subprocess.run(command, check=True, capture_output=True)
    home.mlflow.touch()
    with (
        closing(Records.open(home.ledger)) as records,
        closing(Deliveries(delivery_record(home), store_uri(home, None))) as deliveries,
    ):
        for sweep in records.sweeps():
            for entry in outline(records, home, sweep).entries:
                nothing = Delivery.nothing(entry.id, "none", "", "FINISHED")
                deliveries.put(sweep, replace(nothing, state=entry.state))


def timed(words: Sequence[str], home: Path) -> dict[str, Any]:
    """Run a command; return its seconds, processor time with children, memory and exit code."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeper", *words, "--home", str(home)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    said: list[str] = []
    memory = [0]
    assert process.stderr
    threads = [
        threading.Thread(target=lambda: said.extend(process.stderr or [])),
        threading.Thread(target=_watch, args=(process.pid, memory)),
    ]
    for thread in threads:
        thread.start()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    for thread in threads:
        thread.join()
    process.stderr.close()
    return {
        "seconds": round(seconds, 2),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 2),
        "memory_mib": round(memory[0] * 1024 / MIB),
        "exit_code": process.returncode,
        "last_line": said[-1].strip()[-200:] if said and process.returncode else "",
    }


def _watch(pid: int, memory: list[int]) -> None:
    """Keep the most KiB that a process had resident; what `wait4` says is at least what this process had when it started it."""
    status = Path(f"/proc/{pid}/status")
    with suppress(OSError):
        while found := re.search(r"VmHWM:\s+(\d+)", status.read_text()):
            memory[0] = int(found[1])
            time.sleep(0.02)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the home, time the commands, and print or write what they cost."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.size", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="finished runs in the home")
    parser.add_argument(
        "--only", action="append", help="a command to time, by its name in the table; repeatable"
    )
    parser.add_argument("--keep", type=Path, help="folder of the home, used again if it has one")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        folder = options.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="sweeper-size-"))
        )
        home = Home.at(folder)
        made_s = None if home.ledger.exists() else make(home, options.runs)
        rows = []
        for name, words in commands(len(seeds_of(options.runs)), folder).items():
            if options.only and name not in options.only:
                continue
            machine.progress(f"{name} ...")
            if name == NOTHING_TO_DO:
                deliver_in_word_only(words, home)
            rows.append({"command": name, **timed(words, folder)})
        result = {
            "machine": machine.describe(torch.device("cpu")),
            "runs": options.runs,
            "made_s": made_s and round(made_s, 1),
            "ledger_mib": round(home.ledger.stat().st_size / MIB),
            "rows": rows,
        }
    for row in rows:
        print(
            "{command:22} {seconds:8.2f} s {cpu_s:8.2f} s of cpu {memory_mib:6} MiB  exit {exit_code} {last_line}".format(
                **row
            )
        )
    if options.out:
        save(options.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
