"""Check plug-ins: sweeps by planning them, other kinds in the process that has torch; see `trainables.checking`."""

from dataclasses import dataclass

import search_spaces
from search_spaces import Sweep
from sweeper.machines.probe import Probe
from sweeper.scheduling.plan import find_question
from trainables import contracts
from trainables.checking.laws import Law, Verdict, judge, require
from trainables.contracts import SWEEPS


@dataclass(frozen=True)
class _Subject:
    name: str
    sweep: Sweep
    probe: Probe


def check(package: str, name: str, probe: Probe) -> list[Verdict]:
    """Check a plug-in by its name.

    Args:
        package: The package whose entries are of its kind.
        name: Its name.
        probe: The process that has torch.
    """
    if package == SWEEPS:
        return judge(lambda: _Subject(name, search_spaces.load(name), probe), LAWS)
    return probe.check(package, name)


def _declared(subject: _Subject) -> None:
    require(subject.sweep.question.strip(), "question is empty. Ask what the front answers, in one sentence.")
    require(subject.sweep.scales, "scales is empty. Describe at least one: paper, laptop or smoke.")
    require(
        len(subject.sweep.objectives) == 2, f"{len(subject.sweep.objectives)} objectives; a front has two."
    )
    lacking = set(subject.sweep.objectives) - set(subject.sweep.metrics)
    require(not lacking, f"metrics lacks {', '.join(sorted(lacking))}, which is an objective.")


def _named(subject: _Subject) -> None:
    contracts.check_model(subject.sweep.model)
    contracts.check_metrics(subject.sweep.metrics)


def _plans(subject: _Subject) -> None:
    subject.probe.learn()  # the files that the sweep names were added when it was loaded
    for scale in subject.sweep.scales:
        question = find_question(subject.name, scale, seeds=(0,))
        subject.probe.resolve([spec for _, runs in question.specs() for spec in runs])


LAWS = (
    Law("it declares a question, scales, and two objectives among its metrics", _declared),
    Law("its model and metrics exist", _named),
    Law("its fields and data are valid at every scale", _plans),
)
