"""Run questions to their end: plan, train what is missing, score, write the answer, and deliver it to MLflow.

Running a sweep again resumes it: only what the ledger lacks is trained.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from sweeper import display
from sweeper.analysis.troubles import troubles
from sweeper.home import MAX_STEM, Home, driving
from sweeper.ledger.progress import run_steps
from sweeper.ledger.rows import SweepId
from sweeper.ledger.writer import Ledger
from sweeper.machines.clusters import ClusterMeasure, cluster, described
from sweeper.machines.probe import Probe, ProbeHere, measure_alone, measure_together
from sweeper.machines.resources import Machine, Resources, local_resources
from sweeper.scheduling import launch, placing, scoring
from sweeper.scheduling.estimate import TOO_LONG_S, Estimate, announced, form_packs, plan_table
from sweeper.scheduling.gpu_packs import Measure, MeasureTogether
from sweeper.scheduling.placing import Prepared
from sweeper.scheduling.plan import SCALES, Planned, Question, plan
from sweeper.tracking.process import Projector, is_delivered
from trainables import plugin_store
from trainables.durable import DamagedBlockError
from trainables.errors import InputError
from trainables.importing import without_collection

if TYPE_CHECKING:
    from sweeper.analysis.front import Answer

DELIVERY_S = 60.0
"""Longest time to wait, at the end of a run, for the remaining delivery to MLflow."""


FEW_RUN_STEPS = 10_000
"""Most updates, over all runs, for which the driver measures packs by itself: most likely it also trains them, without Ray."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of running questions, as numbers of runs over all of them.

    Attributes:
        trained: Runs that became done now.
        already_done: Runs that were done before.
        failed: Runs that were given up.
        diverged: Runs whose values stopped being finite, now or before.
        steps_trained: Updates committed now, over all runs.
        tracking_pending: Runs that MLflow does not have yet.
        answer: The front, None if no run is done or the runs cannot be compared.
        files: The files of the answer.
    """

    trained: int
    already_done: int
    failed: int
    diverged: int
    steps_trained: int
    tracking_pending: int
    answer: Answer | None = None
    files: tuple[Path, ...] = ()

    def counts(self) -> dict[str, int]:
        """Return the numbers, by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, int)}

    @property
    def exit_code(self) -> int:
        """0 if every planned run is done, else 1."""
        return 1 if self.failed or self.diverged else 0


@dataclass(frozen=True)
class Pipeline:
    """What to run, and where.

    Attributes:
        questions: Sweeps at a scale.
        home: Where everything is kept.
        machine: Where packs train.
        tracking_uri: MLflow store, None for the one in the home.
        is_insisted: Start however long training takes.
        console: Console for progress.
    """

    questions: Sequence[Question]
    home: Home
    machine: Machine
    tracking_uri: str | None
    is_insisted: bool
    console: Console

    @property
    def _ids(self) -> list[SweepId]:
        return [question.id for question in self.questions]

    def run(self) -> Outcome:
        """Train what is missing, write the answer, and deliver it.

        Raises:
            InputError: A request of the user cannot be fulfilled.
            OSError: An error of the machine, for example a full disk.
            DamagedBlockError: Finished runs lack a metric, and their encodings are damaged.
            KeyboardInterrupt: The user stopped training; run again to resume.
        """
        with driving(self.home, self._say) as ledger:
            with ExitStack() as stack:
                # Where nothing is to be trained, mostly nothing is left to deliver.
                projector = None if self._seems_done(ledger) else stack.enter_context(self._projector())
                planned, prepared = self._plan(ledger)
                before = self._statuses(ledger)
                steps = 0
                if any(each.waiting(ledger.records) for each in planned):
                    projector = projector or stack.enter_context(self._projector())
                    projector.deliver()
                    steps = self._train(ledger, planned, prepared)
                damaged = self._score(ledger, planned)
                if projector:  # meanwhile the answer is written
                    projector.deliver()
                answer, files = self._write_answer(ledger)
                if projector is None and not is_delivered(self.home, self.tracking_uri, self._ids):
                    projector = stack.enter_context(self._projector())
                    projector.deliver()
                pending = self._deliver(projector) if projector else 0
            after = self._statuses(ledger)
            for line in ledger.complaints:
                self.console.print(line, style="yellow", markup=False, soft_wrap=True)
            for each in self.questions:
                for line in troubles(ledger.records, each.id):
                    self.console.print(line, style="red", markup=False, soft_wrap=True)
            if left := sum(status in ("planned", "running") for status in after.values()):
                raise OSError(f"{left} runs ended neither done nor failed")
            if damaged:
                raise damaged
            return replace(_outcome(before, after, steps, pending), answer=answer, files=files)

    def _plan(self, ledger: Ledger) -> tuple[list[Planned], Prepared | None]:
        """Register the questions and print their plan; if a cluster has to be joined, packs are formed later."""
        here = local_resources() if self.machine.address is None else None
        with self._probe(here) as probe:
            for problem in ledger.ingest().problems:
                self.console.print(problem, style="yellow", markup=False, soft_wrap=True)
            _end_lost_attempts(ledger)
            planned = plan(self.questions, probe, ledger.records, self.console)
            prepared = None
            is_missing = any(each.waiting(ledger.records) for each in planned)
            if is_missing and here:
                # Before anything is registered: a question that this machine should not start must not be.
                prepared = self._prepare(ledger, planned, here, probe.measure, measure_together)
        for each in planned:
            plugin_store.keep(self.home.storage, each.question.plugins())
            each.register(ledger)
        return planned, prepared

    def _probe(self, here: Resources | None) -> Probe:
        """Start a probe; this process answers itself where it will most likely train, so that torch is imported once.

        Not with --no-ray: a breakpoint should be reached in training, not while a pack is measured.
        """
        num_steps = sum(each.num_runs * each.scale.steps for each in self.questions)
        is_few = self.machine.ray is None and num_steps <= FEW_RUN_STEPS
        return ProbeHere() if is_few and here and not here.num_gpus else Probe()

    def _prepare(
        self,
        ledger: Ledger,
        planned: Sequence[Planned],
        resources: Resources,
        measure: Measure,
        together: MeasureTogether | None,
    ) -> Prepared:
        """Decide where packs train, form them, and print their estimated time and memory."""
        self.console.print(plan_table(planned, ledger.records))
        measure = announced(measure, self.console)
        prepared = placing.prepare(self.machine, planned, ledger.records, resources, measure, together)
        for note in prepared.notes:
            self._say(note)
        if prepared.expected:
            self.console.print(prepared.expected.sentence(), soft_wrap=True)
            self._refuse_if_too_long(prepared.expected, prepared.machine)
        else:
            self.console.print("No time estimate: no node is free to measure a pack.")
        return prepared

    def _refuse_if_too_long(self, expected: Estimate, settled: Machine) -> None:
        if settled.gpus_per_pack or self.is_insisted or expected.duration_s < TOO_LONG_S:
            return
        scale = self.questions[0].id.scale
        smaller = " or ".join(SCALES[SCALES.index(scale) + 1 :])
        less = f"--scale {smaller}" if smaller else "fewer steps or seeds"
        raise InputError(
            f"Not started: this would take about {display.duration(expected.duration_s)} on this machine's CPU.\n"
            f"Use {less}, a machine with a GPU, or --yes to start anyway."
        )

    def _train(self, ledger: Ledger, planned: Sequence[Planned], prepared: Prepared | None) -> int:
        if prepared and prepared.machine.ray is False:
            return self._work_on_all(ledger, planned, prepared, measure_alone)
        # Ray reports dead workers on standard output, where the answer goes.
        with redirect_stdout(sys.stderr), cluster(self.machine, _import_for_later) as resources:
            for line in described(self.machine, resources):
                self._say(line)
            measure = ClusterMeasure(resources.gpu, self.machine.cluster_gpus > 0, self._say)
            prepared = prepared or self._prepare(ledger, planned, resources, measure, None)
            return self._work_on_all(ledger, planned, prepared, measure)

    def _work_on_all(
        self, ledger: Ledger, planned: Sequence[Planned], prepared: Prepared, measure: Measure
    ) -> int:
        done = self._work_on(ledger, planned, prepared)
        horizons = {each.question.scale.steps for each in planned}
        for _ in range(len(horizons) - 1):  # runs that are also wanted at a later horizon
            packs = form_packs(planned, ledger.records, prepared.machine, prepared.num_slots, measure)
            done += self._work_on(ledger, planned, replace(prepared, packs=packs))
        ledger.prune()
        return done

    def _work_on(self, ledger: Ledger, planned: Sequence[Planned], prepared: Prepared) -> int:
        if not prepared.packs:
            return 0
        before, total = run_steps(ledger.records, _horizons(planned))
        with display.counting(self.console, "training", "run-steps", total, before) as progress:
            launch.train(ledger, prepared.packs, prepared.machine, prepared.num_slots, progress)
        return progress.done

    def _score(self, ledger: Ledger, planned: Sequence[Planned]) -> DamagedBlockError | None:
        """Compute metrics that were added or changed since runs finished; return the error if some encodings are damaged."""
        lacking = [
            run
            for each in planned
            for run in scoring.unscored(ledger.records, each.members, each.question.sweep.metrics)
        ]
        if lacking:
            with display.counting(self.console, "scoring", "runs", len(lacking)) as progress:
                try:
                    scoring.score(ledger, lacking, progress)
                except DamagedBlockError as error:
                    return error
        return None

    def _write_answer(self, ledger: Ledger) -> tuple[Answer | None, tuple[Path, ...]]:
        """Write the home's own copy of the answer, which is also delivered to MLflow; return it with its files."""
        ids = self._ids
        if not any(ledger.records.counts(each)["done"] for each in ids):
            return None, ()
        with without_collection():
            from sweeper.analysis import front
            from sweeper.figures.front_data import write_plot

        self.home.exports.mkdir(exist_ok=True)
        folder, stem = self.home.exports, "+".join(map(str, ids))[:MAX_STEM]
        answer, files = None, list[Path]()
        try:
            answer = front.answer(ledger.records, ids, home=self.home.path)
            for write, kind, suffix in (
                (front.write_csv, "front", ".csv"),
                (front.write_left_out, "left out", ".csv"),
                (write_plot, "plot", ".png"),
            ):
                files.append(write(answer, folder / f"{stem}{suffix}"))
                ledger.record_export(files[-1], kind, ids)
        except InputError as error:  # runs that cannot be compared or drawn are still delivered
            self.console.print(str(error), style="yellow", markup=False, soft_wrap=True)
        return answer, tuple(files)

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, markup=False)

    def _seems_done(self, ledger: Ledger) -> bool:
        """Return whether the ledger has as many finished runs as are asked for."""
        known = set(ledger.records.sweeps())
        return all(
            each.id in known and ledger.records.counts(each.id)["done"] >= each.num_runs
            for each in self.questions
        )

    def _projector(self) -> Projector:
        return Projector.start(self.home, self.tracking_uri, self._ids)

    def _deliver(self, projector: Projector) -> int:
        pending = projector.stop(DELIVERY_S)
        if pending:
            why = projector.complaint() or f"not within {display.duration(DELIVERY_S)}"
            self.console.print(
                f"[yellow]{pending} runs are not in MLflow yet ({escape(why)}). Nothing is lost;[/] to deliver them later:",
                soft_wrap=True,
            )
            again = command("sync", self.questions, self.home, self.tracking_uri)
            self.console.print(f"  {again}", soft_wrap=True, markup=False)
        return pending

    def _statuses(self, ledger: Ledger) -> dict[str, str]:
        """Return the status of each run of the questions that the ledger knows; a run of two questions counts once."""
        known = set(ledger.records.sweeps())
        asked = [each for each in self._ids if each in known]
        return {row.key: row.status for each in asked for row in ledger.records.members(each)}


def _import_for_later() -> None:
    """Import what training and the answer need: pandas, matplotlib and Ray Tune take seconds, in which Ray starts."""
    with without_collection():
        from sweeper.figures import front_data  # noqa: F401
        from sweeper.scheduling import ray_tune  # noqa: F401


def _end_lost_attempts(ledger: Ledger) -> None:
    """End the attempts that are still open: their driver is gone, since this process holds the home."""
    for attempt in ledger.records.attempts():
        if attempt.ended_at_s is None:
            ledger.end_attempt(attempt.number, "lost")


def _horizons(planned: Sequence[Planned]) -> dict[str, int]:
    """Return the last step of each run by its key; that of a run of two questions is the later one."""
    horizons: dict[str, int] = {}
    for member in (member for each in planned for member in each.members):
        horizons[member.key] = max(member.horizon_steps, horizons.get(member.key, 0))
    return horizons


def _outcome(before: dict[str, str], after: dict[str, str], steps: int, pending: int) -> Outcome:
    counts = Counter(after.values())
    already = sum(status == "done" for status in before.values())
    return Outcome(
        trained=counts["done"] - already,
        already_done=already,
        failed=counts["failed"],
        diverged=counts["diverged"],
        steps_trained=steps,
        tracking_pending=pending,
    )


def command(word: str, questions: Sequence[Question], home: Home, tracking_uri: str | None = None) -> str:
    """Return a command about the same sweeps, as a user can type it."""
    first = questions[0].id
    return display.command(
        word,
        *(question.id.name for question in questions),
        scale=first.scale,
        label=first.label,
        home=home.path,
        storage=None if home.storage == home.path / "storage" else home.storage,
        tracking_uri=tracking_uri,
    )
