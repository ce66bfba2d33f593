"""How commands end when a signal comes, in every phase: `python -m benchmarks.endings [--phase NAME ...] [--signal NAME ...]`.

A signal is sent to the process alone, to its group (as `timeout` and a terminal do), or to all of its processes (as a service manager and
a job scheduler do). It should end with exit code 130 and a last line that says so, leave no process, and take less than ten seconds.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SIGNALS = ("TERM", "HUP", "USR1", "INT")
TARGETS = ("process", "group", "all")
MARK = "SWEEPER_ENDINGS"
SWEEP = ["factorvae_gamma", "--scale", "smoke"]
LONG = [*SWEEP, "--as", "long", "--set", "steps=400000", "--set", "evaluate_every=100000"]
LATEST_S = 10.0
READY_S = 90.0


@dataclass(frozen=True)
class Phase:
    """What a command is doing when the signal comes.

    Attributes:
        words: The command line; HOME, PORT and SILENT are filled in: an unused port, and the address of a server that never answers.
        process: Part of the command line of one of its processes, which exists in this phase.
        more_s: Seconds from there into the phase.
    """

    words: Sequence[str]
    process: str
    more_s: float = 0.0


PHASES = {
    "planning": Phase(["plan", "infowgan_gp", "--scale", "paper"], "trainables.probe", 4.0),
    "starting": Phase(["run", *SWEEP], "trainables.probe"),
    "Ray starting": Phase(["run", *LONG], "gcs_server", 0.5),
    "training": Phase(["run", *LONG], "ray::PackTrainable", 8.0),
    "in process": Phase(["run", *LONG, "--no-ray"], "tracking.worker", 8.0),
    "scoring": Phase(["evaluate", *SWEEP, "--metric", "dci,explicitness"], "multiprocessing.spawn", 2.0),
    "delivering": Phase(["run", *SWEEP, "--tracking-uri", "SILENT"], "tracking.worker", 4.0),
    "sync": Phase(["sync", *SWEEP, "--tracking-uri", "SILENT"], "tracking.worker", 3.0),
    "calibrate": Phase(["calibrate", "sprites", "--num-seeds", "100"], "trainables.probe", 6.0),
    "ui starting": Phase(["ui", "--port", "PORT"], "mlflow", 1.0),
    "ui": Phase(["ui", "--port", "PORT"], "uvicorn", 12.0),
}


@dataclass(frozen=True)
class Ending:
    """How a command ended: exit code, seconds, processes that are left, last line and number of lines after the signal."""

    code: int | None
    seconds: float
    num_left: int
    line: str
    num_lines: int

    @property
    def is_right(self) -> bool:
        """Whether it is as a user expects."""
        is_said = self.line.startswith("Stopped")
        return self.code == 130 and self.seconds < LATEST_S and self.num_left == 0 and is_said


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the endings that were asked for, print a table, and return how many are wrong, at most 1."""
    options = build_parser().parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
    num_wrong = 0
    with (
        tempfile.TemporaryDirectory(prefix="endings-") as folder,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        finished = Path(folder, "finished")
        subprocess.run(
            [sys.executable, "-m", "sweeper", "run", *SWEEP, "--no-ray", "--home", finished],
            check=True,
            capture_output=True,
        )
        print(f"{'phase':14}{'signal':8}{'target':10}{'code':>6}{'s':>7}{'left':>6}{'lines':>7}  last line")
        for name in options.phase or PHASES:
            for number in options.signal or SIGNALS:
                for target in options.target or TARGETS:
                    home = Path(folder, "home")
                    shutil.copytree(finished, home)
                    words = filled(PHASES[name].words, silent.getsockname()[1])
                    found = ending([*words, "--home", str(home)], PHASES[name], number, target)
                    shutil.rmtree(home)
                    num_wrong += not found.is_right
                    mark = "" if found.is_right else " <-"
                    print(
                        f"{name:14}{number:8}{target:10}{found.code!s:>6}{found.seconds:7.1f}{found.num_left:6}"
                        f"{found.num_lines:7}  {found.line[:70]}{mark}",
                        flush=True,
                    )
    return min(num_wrong, 1)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endings", description=__doc__)
    parser.add_argument("--phase", action="append", choices=tuple(PHASES), help="default: all; repeatable")
    parser.add_argument("--signal", action="append", choices=SIGNALS, help="default: all; repeatable")
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: all; repeatable")
    return parser


def filled(words: Sequence[str], silent_port: int) -> list[str]:
    """Return a command line with its placeholders filled in."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    places = {"PORT": str(port), "SILENT": f"http://127.0.0.1:{silent_port}"}
    return [places.get(word, word) for word in words]


def ending(words: Sequence[str], phase: Phase, number: str, target: str) -> Ending:
    """Start a command, send a signal in a phase, and see how it ends."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "sweeper", *words],
            env={**os.environ, MARK: mark},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            wait_until(
                lambda: process.poll() is not None or is_there(phase.process, mark, process.pid), READY_S
            )
            time.sleep(phase.more_s)
            before, begun = os.fstat(said.fileno()).st_size, time.monotonic()
            send(process.pid, getattr(signal, f"SIG{number}"), target, mark)
            with suppress(subprocess.TimeoutExpired):
                process.wait(READY_S)
            seconds = time.monotonic() - begun
            wait_until(lambda: not pids(mark, process.pid), max(0.0, LATEST_S - seconds))
            num_left = len(pids(mark, process.pid))
        finally:
            for each in pids(mark, process.pid):
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            process.wait()
        said.seek(before)
        lines = said.read().strip().splitlines()
        return Ending(process.returncode, seconds, num_left, lines[-1] if lines else "", len(lines))


def send(pid: int, number: int, target: str, mark: str) -> None:
    """Send a signal to a process, its group, or all processes that it started."""
    if target == "process":
        os.kill(pid, number)
    elif target == "group":
        os.killpg(pid, number)
    else:
        for each in pids(mark, pid):
            with suppress(ProcessLookupError):
                os.kill(each, number)


def is_there(words: str, mark: str, pid: int) -> bool:
    """Whether one of the marked processes has these words in its command line."""
    for each in pids(mark, pid):
        with suppress(OSError):
            if words in Path(f"/proc/{each}/cmdline").read_text().replace("\0", " "):
                return True
    return False


def pids(mark: str, session: int) -> list[int]:
    """Return the living processes with a mark in their environment, and those of a session: Ray overwrites their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_ours = (
                os.getsid(int(path.name)) == session
                or f"{MARK}={mark}".encode() in (path / "environ").read_bytes()
            )
            if is_ours and (path / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(int(path.name))
    return found


def wait_until(condition: Callable[[], bool], timeout_s: float) -> None:
    """Wait until a condition holds, at most this long."""
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
