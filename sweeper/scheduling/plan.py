"""Turn names typed on a command line into runs: draws times seeds, each with its key.

A question is one sweep at one scale with the user's changes; planning it twice gives the same runs.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console

import search_spaces
from search_spaces import Scale, Sweep
from sweeper import display
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId, SweepSpec
from sweeper.ledger.writer import Draw, Ledger, Member
from sweeper.machines.probe import Probe, ProbedRun
from sweeper.scheduling import scoring, variants
from sweeper.scheduling.label_free import answerable
from sweeper.scheduling.packing import Waiting
from sweeper.scheduling.variants import PROTOCOL
from trainables import contracts, plugins, reading
from trainables.config import RunSpec, Schedule, Value, spec_of
from trainables.errors import InputError, UnknownNameError

SCALES = ("paper", "laptop", "smoke")
_PROTOCOL = (*PROTOCOL, "precision")

MANY_RUNS = 20_000
"""Planning so many runs takes seconds, so the user is told."""

MAX_RUNS = 100_000
"""Most runs of one command: a plan of them takes about 20 seconds and 300 MiB."""


@dataclass(frozen=True)
class Question:
    """A sweep at a scale, as the user asked for it.

    Attributes:
        id: Identity of the sweep in a home.
        sweep: The sweep.
        scale: Protocol of the scale, with the user's changes.
        seeds: Seeds of every draw.
        fields: What the user changed with `--set`, as typed.
        data: What the user chose with `--data`, None for the scale's data.
    """

    id: SweepId
    sweep: Sweep
    scale: Scale
    seeds: tuple[int, ...]
    fields: Mapping[str, str] = field(default_factory=dict)
    data: str | None = None

    @property
    def schedule(self) -> Schedule:
        """When its runs report, are evaluated and end."""
        scale = self.scale
        return Schedule(scale.steps, scale.report_every, scale.evaluate_every, self.sweep.metrics)

    @property
    def num_runs(self) -> int:
        """Number of runs: draws times seeds."""
        return sum(1 for _ in self.scale.draws()) * len(self.seeds)

    def without(self, names: Collection[str]) -> "Question":
        """Return the question without some of the fields that the user changed."""
        fields = {name: value for name, value in self.fields.items() if name not in names}
        scale = variants.changed(self.sweep.scales[self.id.scale], fields, self.data)
        return replace(self, scale=scale, fields=fields)

    def plugins(self) -> list[str]:
        """Return references to everything that is a plug-in: sweep, model, data set and metrics."""
        used = {
            contracts.SWEEPS: [self.id.name],
            contracts.MODELS: [self.sweep.model],
            contracts.DATA: [self.scale.data],
            contracts.METRICS: [*self.sweep.metrics, *self.sweep.objectives],
        }
        return [plugins.reference(package, name) for package, names in used.items() for name in names]

    def specs(self) -> list[tuple[dict[str, Value], list[RunSpec]]]:
        """Return every draw with its runs, one per seed."""
        model = plugins.reference(contracts.MODELS, self.sweep.model)
        data = plugins.reference(contracts.DATA, self.scale.data)
        return [
            (
                draw,
                [
                    RunSpec(
                        model,
                        data,
                        {**self.scale.fields, **draw},
                        seed,
                        self.scale.precision,
                    )
                    for seed in self.seeds
                ],
            )
            for draw in self.scale.draws()
        ]


@dataclass(frozen=True)
class Planned:
    """A question whose runs have keys.

    Attributes:
        question: The question.
        draws: Draws as the ledger registers them.
        runs: Run key -> keys and specification of the run.
        num_factors: Ground-truth factors of the images that vary; the question is adapted to them.
    """

    question: Question
    draws: tuple[Draw, ...]
    runs: Mapping[str, ProbedRun]
    num_factors: int

    @property
    def spec(self) -> SweepSpec:
        """Content of the question that the ledger stores."""
        sweep, scale = self.question.sweep, self.question.scale
        return {
            "question": sweep.question,
            "model": sweep.model,
            "objectives": sweep.objectives,
            "metrics": sweep.metrics,
            "data": scale.data,
            "fields": dict(scale.fields),
            "steps": scale.steps,
            "note": sweep.scales[self.question.id.scale].notes(scale.data),
            "num_factors": self.num_factors,
            "report_every": scale.report_every,
            "evaluate_every": scale.evaluate_every,
        }

    def register(self, ledger: Ledger) -> None:
        """Add to the ledger what is new in this question."""
        ledger.register_sweep(self.question.id, self.spec, self.draws)

    @property
    def members(self) -> list[Member]:
        """All runs of the question."""
        return [member for draw in self.draws for member in draw.members]

    def waiting(self, records: Records | None) -> list[Waiting]:
        """Return the runs that are neither at their horizon nor diverged; runs that failed are tried again.

        Args:
            records: The ledger, which may not know the question yet; None if there is no ledger.
        """
        standing = records.standing(member.key for member in self.members) if records else {}
        missing = [
            member
            for member in self.members
            if member.key not in standing or standing[member.key].is_open(member.horizon_steps)
        ]
        steps = records.resume_steps(member.key for member in missing) if records else {}
        return [
            Waiting(
                member.key,
                self.runs[member.key].static_key,
                self.runs[member.key].spec,
                steps.get(member.key, 0),
                self.question.schedule,
                self.question.scale.block_s,
            )
            for member in missing
        ]


def find_question(
    name: str,
    scale: str,
    seeds: tuple[int, ...] | None = None,
    fields: Mapping[str, str] | None = None,
    label: str = "",
    data: str | None = None,
) -> Question:
    """Return the question for the name of a sweep, with the user's changes.

    Args:
        name: Entry of `search_spaces`.
        scale: One of the sweep's scales.
        seeds: Seeds to use instead of the scale's.
        fields: Dotted fields of the model, hyperparameters or settings of the protocol, as typed.
        label: Label of the changed question.
        data: Data set, or the path of the user's own images, to use instead of the scale's.

    Raises:
        InputError: The name or scale is unknown, or there is a change without a label.
    """
    sweep, fields = search_spaces.load(name), fields or {}
    if scale not in sweep.scales:
        raise UnknownNameError("scale", scale, sweep.scales)
    if (fields or data is not None) and not label:
        change = "--set {}={}".format(*next(iter(fields.items()))) if fields else reading.typed(data or "")
        raise InputError(
            f"{change} makes a variant of sweep {name}, which needs a label.\nAdd one, for example --as mine."
        )
    protocol = variants.changed(sweep.scales[scale], fields, data)
    chosen = seeds or tuple(range(protocol.num_seeds))
    return Question(SweepId(name, scale, label), sweep, protocol, chosen, fields, data)


def _as_known(question: Question, records: Records | None) -> Question:
    """Return the question with what a ledger already has for it: seeds, and what its label stands for."""
    if records is None or question.id not in records.sweeps():
        return question
    seeds = {row.seed for row in records.members(question.id)} | set(question.seeds)
    question = replace(question, seeds=tuple(sorted(seeds)))
    if not question.id.label:
        return question
    known = variants.recalled(records, question.id, question.sweep.scales[question.id.scale])
    scale = variants.changed(known, question.fields, question.data)
    variants.check_space(question.id, known, scale)
    return replace(question, scale=scale)


def plan(
    questions: Sequence[Question], probe: Probe, records: Records | None, console: Console | None = None
) -> list[Planned]:
    """Return questions with the keys of their runs, including the seeds that a ledger already has for them.

    Args:
        questions: Questions as the user asked for them.
        probe: Resolves their runs.
        records: The ledger in which they will be registered; None if there is none yet.
        console: Console that is told if they are so many that planning takes a while.

    Raises:
        InputError: The model does not have a field or does not accept its value, the ledger has a different question with
            the same name, a run was trained past the horizon and not evaluated there, or a metric cannot be computed on
            the images.
    """
    questions = [_as_known(question, records) for question in _with_own_fields(questions, probe)]
    _refuse_too_many(questions)
    specs = [spec for question in questions for _, runs in question.specs() for spec in runs]
    if console and len(specs) >= MANY_RUNS:
        console.print(f"Planning {display.runs(len(specs))}, which takes a while ...")
    try:
        found = iter(probe.resolve(specs))
    except UnknownNameError as error:
        if error.kind != "field":
            raise
        raise UnknownNameError("field", error.name, {*error.valid, *_PROTOCOL}) from None
    planned = [_planned(question, found) for question in questions]
    if records is not None:
        for each in planned:
            records.check_sweep(each.question.id, each.spec, each.draws)
            lacking = scoring.unscored(records, each.members, each.question.sweep.metrics)
            scoring.check(each.question.id, lacking)
    for each in planned:
        waiting = [run for run in each.waiting(records) if each.runs[run.key].is_small]
        kinds = {run.static_key: spec_of(run.spec) for run in waiting}
        for spec in kinds.values():
            probe.tried(spec, each.question.sweep.metrics)
    return planned


def _refuse_too_many(questions: Sequence[Question]) -> None:
    num_runs = sum(question.num_runs for question in questions)
    if num_runs > MAX_RUNS:
        raise InputError(
            f"{num_runs:,} runs (draws times seeds) are more than {MAX_RUNS:,}, the most in one command.\n"
            "Use fewer seeds with --seeds, for example --seeds 0-9, or fewer values with --set."
        )


def _with_own_fields(questions: Sequence[Question], probe: Probe) -> list[Question]:
    """Return questions whose typed fields are those that their model has; a field of another question's model is left out.

    Raises:
        UnknownNameError: No model has a field.
    """
    models = {question.sweep.model for question in questions}
    if len(models) == 1 or not any(question.fields for question in questions):
        return list(questions)
    known = {
        model: {*probe.fields(plugins.reference(contracts.MODELS, model)), *_PROTOCOL} for model in models
    }
    for name in questions[0].fields:
        if not any(name in fields for fields in known.values()):
            raise UnknownNameError("field", name, set.union(*known.values()))
    return [question.without(set(question.fields) - known[question.sweep.model]) for question in questions]


def _planned(question: Question, found: Iterator[ProbedRun]) -> Planned:
    """Return a question with its runs, which are next among those found."""
    draws, runs = [], {}
    for number, (params, specs) in enumerate(question.specs()):
        members = []
        for spec in specs:
            run = next(found)
            runs[run.key] = run
            members.append(Member(run.key, spec.seed, question.scale.steps, run.spec))
        draws.append(Draw(number, params, tuple(members)))
    num_factors = min(run.num_factors for run in runs.values())
    question = replace(question, sweep=answerable(question.sweep, num_factors))
    return Planned(question, tuple(draws), runs, num_factors)
