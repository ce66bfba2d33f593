"""What a run prints at its end: the answer, what was done, and where everything is."""

from collections.abc import Sequence

import click
from rich.console import Console

from sweeper import display
from sweeper.cli.tables import show_answer
from sweeper.home import Home
from sweeper.pipeline import Outcome, command
from sweeper.scheduling.plan import Question


def show_outcome(outcome: Outcome, questions: Sequence[Question], home: Home) -> None:
    """Print the end of a run."""
    click.echo(
        f"{outcome.trained} runs trained, {outcome.already_done} done before, "
        f"{outcome.failed} failed, {outcome.diverged} diverged."
    )
    if outcome.answer:
        show_answer(outcome.answer, Console(highlight=False))
    for path in outcome.files:
        click.echo(f"Wrote {path}")
    click.echo(f"The front: {command('pareto', questions, home)}")
    click.echo(f"MLflow:    {display.command('ui', home=home.path)}")
