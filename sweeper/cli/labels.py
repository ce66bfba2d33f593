"""Commands that change how a home lists its sweeps: `rename`, `forget`."""

import click

from sweeper import display
from sweeper.cli.options import NAME, HomeOptions, SweepOptions, check_label, with_home, with_sweep
from sweeper.cli.resolve import check_ledger, check_stored, find_home, known_sweeps
from sweeper.home import lock_home
from trainables.errors import InputError

_MLFLOW = "MLflow keeps its entries under the name {}; delete that experiment there if you do not need it."


@click.command()
@NAME
@click.option("--to", "new_label", required=True, metavar="LABEL", callback=check_label, help="the new label")
@with_sweep
@with_home
def rename(name: str, chosen: SweepOptions, place: HomeOptions, new_label: str) -> None:
    """Give a sweep another label; nothing is trained again."""
    home = find_home(place, is_written=True)
    check_stored(home, must_exist=False)
    check_ledger(home, [name], chosen)
    from sweeper.ledger.writer import Ledger

    with lock_home(home.path), Ledger(home.ledger, home.storage) as ledger:
        ledger.ingest()
        (sweep,) = known_sweeps(ledger.records, [name], chosen, home)
        if sweep.label == new_label:
            raise InputError(f"--to {new_label}: that is its label.\nChoose another.")
        new = ledger.rename_sweep(sweep, new_label)
        click.echo(f"{sweep} is {new} now. {_MLFLOW.format(sweep)}")


@click.command()
@NAME
@with_sweep
@with_home
def forget(name: str, chosen: SweepOptions, place: HomeOptions) -> None:
    """Remove a sweep from the home's list. Its results stay in the storage, and are used when it is run again."""
    home = find_home(place, is_written=True)
    check_stored(home, must_exist=False)
    check_ledger(home, [name], chosen)
    from sweeper.ledger.writer import Ledger

    with lock_home(home.path), Ledger(home.ledger, home.storage) as ledger:
        ledger.ingest()
        (sweep,) = known_sweeps(ledger.records, [name], chosen, home)
        num_runs = len(ledger.records.members(sweep))
        ledger.forget_sweep(sweep)
        click.echo(
            f"{sweep} is forgotten. The results of its {display.runs(num_runs)} stay in {home.storage}: `run` takes them"
            f" from there. {_MLFLOW.format(sweep)}"
        )
