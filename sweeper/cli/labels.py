"""Commands that change how a home lists its sweeps: `rename`, `forget`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from sweeper import display
from sweeper.cli.options import NAME, HomeOptions, SweepOptions, check_label, with_home, with_sweep
from sweeper.cli.resolve import changing
from trainables.errors import InputError

if TYPE_CHECKING:
    from sweeper.ledger.rows import SweepId


@click.command()
@NAME
@click.option("--to", "new_label", required=True, metavar="LABEL", callback=check_label, help="the new label")
@with_sweep
@with_home
def rename(name: str, chosen: SweepOptions, place: HomeOptions, new_label: str) -> None:
    """Give a sweep another label; nothing is trained again."""
    with changing([name], chosen, place) as (_, ledger, (sweep,)):
        if sweep.label == new_label:
            raise InputError(f"--to {new_label}: that is its label.\nChoose another.")
        new = ledger.rename_sweep(sweep, new_label)
        click.echo(f"{sweep} is {new} now. {_left_in_mlflow(sweep)}")


@click.command()
@NAME
@with_sweep
@with_home
def forget(name: str, chosen: SweepOptions, place: HomeOptions) -> None:
    """Remove a sweep from the home's list. Its results stay in the storage, and are used when it is run again."""
    with changing([name], chosen, place) as (home, ledger, (sweep,)):
        num_runs = len(ledger.records.members(sweep))
        ledger.forget_sweep(sweep)
        click.echo(
            f"{sweep} is forgotten. The results of its {display.runs(num_runs)} stay in {home.storage}: `run` takes them"
            f" from there. {_left_in_mlflow(sweep)}"
        )


def _left_in_mlflow(sweep: SweepId) -> str:
    from sweeper.tracking.outline import title

    return f"MLflow keeps its experiment '{title(sweep)}'; delete it there if you do not need it."
