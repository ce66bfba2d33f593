"""Ask a process that has torch about runs, so that the driver does not need torch; see `trainables.probe`."""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

from trainables import plugins
from trainables.checking.laws import Verdict
from trainables.config import RunSpec, StoredSpec, but_for_seed
from trainables.errors import InputError, UnknownNameError
from trainables.importing import without_collection


@dataclass(frozen=True)
class ProbedRun:
    """What is known of a run before it is trained.

    Attributes:
        key: Its key.
        static_key: What it has in common with the runs that it can be packed with.
        spec: Its specification with every field filled in.
        num_factors: How many factors of its images vary.
        is_small: Whether its images are so few that metrics are tried on them.
    """

    key: str
    static_key: str
    spec: StoredSpec
    num_factors: int
    is_small: bool = False


@dataclass(frozen=True)
class Measured:
    """The cost of a pack.

    Attributes:
        step_time_s: Seconds of one step of all its runs.
        memory_gib: Memory that training needs.
        room_gib: Memory of its share of the GPU; 0 on a CPU.
    """

    step_time_s: float
    memory_gib: float
    room_gib: float


@dataclass(frozen=True)
class Evaluated:
    """The images that metrics are computed on.

    Attributes:
        recipe: Recipe of the images.
        num_images: Number of images.
    """

    recipe: str
    num_images: int


class ProbeError(OSError):
    """The process that has torch died, perhaps killed by the kernel because memory ran out, or this machine's GPU is unusable."""


class Probe:
    """A child process that answers until the context ends; it starts at once and imports while the driver continues."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "trainables.probe"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.learn()

    def learn(self) -> None:
        """Give the process the files of your own that this one knows by now."""
        if files := plugins.carried():
            self._ask({"plugins": [{**asdict(file), "path": str(file.path)} for file in files]})

    def __enter__(self) -> "Probe":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def resolve(self, runs: Sequence[RunSpec]) -> list[ProbedRun]:
        """Check runs and return their keys and full specifications.

        Raises:
            InputError: A specification is invalid.
        """
        alike: dict[str, list[RunSpec]] = {}
        for run in runs:
            alike.setdefault(but_for_seed(run), []).append(run)
        groups = [(asdict(group[0]), [run.seed for run in group]) for group in alike.values()]
        answer = self._ask({"resolve": groups})
        _refuse_out_of_memory(answer, ", ".join(dict.fromkeys(run.data for run in runs)))
        found: dict[tuple[str, int], ProbedRun] = {}
        for token, (_, seeds), told in zip(alike, groups, answer["resolved"], strict=True):
            stored: StoredSpec = told.pop("spec")
            keys = told.pop("keys")
            for seed, key in zip(seeds, keys, strict=True):
                found[token, seed] = ProbedRun(key=key, spec={**stored, "seed": seed}, **told)
        return [found[but_for_seed(run), run.seed] for run in runs]

    def fields(self, model: str) -> list[str]:
        """Return the dotted fields of a model's configuration."""
        found: list[str] = self._ask({"fields": model})["fields"]
        return found

    def tried(self, run: RunSpec, metrics: Sequence[str]) -> list[str]:
        """Return what a person should know of metrics on the images of a run before training; it is also printed.

        Raises:
            InputError: A metric cannot be computed on these images.
        """
        answer = self._ask({"try": asdict(run), "metrics": list(metrics)})
        _refuse_out_of_memory(answer, run.data)
        notes: list[str] = answer["notes"]
        return notes

    def measure(self, run: RunSpec, num_runs: int, gpus: float, threads: int) -> Measured | None:
        """Return time and memory of a pack of such runs, from about a second of training; None if it does not fit on the GPU."""
        question = {"measure": asdict(run), "num_runs": num_runs, "gpus": gpus, "threads": threads}
        answer = self._ask(question)
        return None if "out_of_memory" in answer else Measured(**answer)

    def _prepare(self, run: RunSpec, num_runs: int, gpus: float, threads: int) -> None:
        self._send({"prepare": asdict(run), "num_runs": num_runs, "gpus": gpus, "threads": threads})

    def evaluated(self, data: str) -> Evaluated:
        """Return the images that metrics are computed on.

        Raises:
            InputError: The data set is unknown or has no ground truth.
        """
        answer = self._ask({"evaluated": data})
        _refuse_out_of_memory(answer, data)
        return Evaluated(**answer)

    def calibrate(self, data: str, code: str, metric: str, num_seeds: int) -> list[float]:
        """Return the values of a metric for a known code, one per seed; see `trainables.known_codes`.

        Raises:
            InputError: The data set, code or metric is unknown, there is no ground truth, or memory does not hold this many
                seeds.
        """
        question = {"calibrate": data, "code": code, "metric": metric, "num_seeds": num_seeds}
        answer = self._ask(question)
        if "out_of_memory" in answer:
            raise InputError(f"{data}: not enough memory for {num_seeds} encoders.\nUse fewer seeds.")
        values: list[float] = answer["values"]
        return values

    def check(self, package: str, name: str) -> list[Verdict]:
        """Hold a plug-in to its contract, see `trainables.checking`."""
        answer = self._ask({"check": name, "package": package})
        return [Verdict(law, problem) for law, problem in answer["verdicts"]]

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        self._send(question)
        return self._answer()

    def _send(self, question: Mapping[str, Any]) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):  # `_answer` reports that the process is gone
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line.endswith("\n"):
            raise ProbeError(_death(self._process.wait()))
        return _read(line)


class ProbeHere(Probe):
    """Answers in this process, which imports torch for it: for a driver that will most likely train by itself."""

    def __init__(self) -> None:
        self._asked: list[str] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if arithmetic := sys.modules.get(
            "trainables.arithmetic"
        ):  # else nothing was asked, and torch is not there
            arithmetic.release_process()

    def _send(self, question: Mapping[str, Any]) -> None:
        self._asked.append(json.dumps(question))

    def _answer(self) -> dict[str, Any]:
        with without_collection():
            from trainables import probe

        return _read(probe.answer(self._asked.pop(0), []))


def _read(line: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(line)
    if "unknown" in answer:
        raise UnknownNameError(*answer["unknown"])
    if "error" in answer:
        raise InputError(answer["error"])
    if "machine" in answer:
        raise ProbeError(answer["machine"])
    return answer


def _death(code: int) -> str:
    what = "the process that measures packs"
    if code == -signal.SIGKILL:
        return f"{what} was killed, perhaps by the kernel because memory ran out"
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"{what} {how}; see its output above"


def measure_alone(run: RunSpec, num_runs: int, gpus: float, threads: int) -> Measured | None:
    """Return time and memory of a pack, see `Probe.measure`, in a process that is started for it."""
    with Probe() as probe:
        return probe.measure(run, num_runs, gpus, threads)


def measure_together(run: RunSpec, num_runs: int, num_packs: int, threads: int) -> float | None:
    """Return the seconds per step of packs with this many such runs, this many packs at once on one GPU of this machine.

    Returns:
        Seconds of the slowest pack; None if the GPU does not hold all packs.
    """
    with ExitStack() as stack:
        probes = [stack.enter_context(Probe()) for _ in range(num_packs)]
        for probe in probes:
            probe._prepare(run, num_runs, 1 / num_packs, threads)
        if not all("ready" in probe._answer() for probe in probes):
            return None
        for probe in probes:  # all packs are built: now they train at the same time
            probe._send({"time": True})
        return float(max(probe._answer()["step_time_s"] for probe in probes))


def _refuse_out_of_memory(answer: Mapping[str, Any], data: str) -> None:
    if "out_of_memory" in answer:
        raise InputError(f"--data {data}: not enough memory on this machine.\nUse a smaller data set.")
