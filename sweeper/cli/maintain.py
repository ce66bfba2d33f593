"""Commands that look after a home: deliver to MLflow, show it, check, and make a lost ledger again."""

import subprocess
import sys
from typing import Any

import click

from sweeper import display
from sweeper.cli.options import (
    MANY,
    NAME,
    check_ledger,
    check_stored,
    common_options,
    damage_words,
    find_home,
    known_sweeps,
    open_records,
)
from sweeper.home import Home, lock_home
from trainables.errors import InputError
from trainables.layout import Layout


@click.command()
@MANY
@common_options("scale", "label", "home", "storage", "uri")
def sync(names: tuple[str, ...], uri: str | None, **options: Any) -> int:
    """Deliver to MLflow what it lacks, from the ledger."""
    home = find_home(options, is_written=True, has_store=True)
    sweeps = known_sweeps(open_records(home), names, options)
    from sweeper.tracking import process

    pending = process.run_sync(home, uri, sweeps, is_anew=True)
    if pending:
        left = f"MLflow still lacks {pending} runs."
        click.echo(f"{left} Nothing is lost: sync again once it answers.", err=True)
        return 3
    click.echo(f"{process.store_uri(home, uri)} has everything that is committed.")
    return 0


@click.command()
@NAME
@common_options("scale", "label", "home", "storage", "uri")
def verify(name: str, uri: str | None, **options: Any) -> int:
    """Check blocks, ledger, exports and MLflow against each other; 0 only if all agree."""
    home = find_home(options, has_store=True)
    check_ledger(home)
    from sweeper.ledger.verify import check
    from sweeper.tracking import process

    if damage := home.damage():
        problems = [damage_words(home, damage)]
    else:
        sweeps = known_sweeps(open_records(home), [name], options)
        problems = check(home.ledger, home.storage)
        problems += process.run_verify(home, uri, sweeps)
    for problem in problems:
        click.echo(problem)
    click.echo(
        f"Problems found: {len(problems)}." if problems else "Blocks, ledger, exports and MLflow agree."
    )
    return 1 if problems else 0


@click.command()
@MANY
@common_options("scale", "label", "home", "storage")
def prune(names: tuple[str, ...], **options: Any) -> None:
    """Drop what finished runs keep for being trained further: gigabytes at paper scale. Results stay."""
    home = find_home(options, is_written=True)
    check_ledger(home)
    from sweeper.ledger.writer import Ledger

    with lock_home(home.path), Ledger(home.ledger, home.storage) as ledger:
        ledger.ingest()
        sweeps = known_sweeps(ledger.records, names, options)
        kept = {key for key, *_ in ledger.records.needed_states()}
        keys = kept & {key for sweep in sweeps for key in ledger.records.finished(sweep)}
        before = _state_bytes(home)
        if keys:
            ledger.drop_states(keys)
        else:
            ledger.prune()  # what a prune that was killed left
    freed = display.memory((before - _state_bytes(home)) / 2**30)
    if not keys and before == _state_bytes(home):
        click.echo("No finished run of this keeps a state: there is nothing to drop.")
        return
    click.echo(
        f"Dropped the states of {display.runs(len(keys))}: {freed} freed. Points, encodings, weights and pictures stay;"
        " to be trained to more steps, they would start from step 0."
    )


def _state_bytes(home: Home) -> int:
    return sum(path.stat().st_size for path in Layout(home.storage).states())


@click.command()
@common_options("home", "storage")
def rebuild(**options: Any) -> int:
    """Make a lost ledger again from the storage; 1 if some of it cannot be read."""
    home = find_home(options, is_written=True)
    check_stored(home)
    from sweeper.ledger import verify as checking

    with lock_home(home.path):
        found = checking.rebuild(home.ledger, home.storage)
        home.remember_storage()
    for problem in found.problems:
        click.echo(problem)
    click.echo(f"{home.ledger} holds {found.num_taken} blocks again.")
    return 1 if found.problems else 0


@click.command()
@common_options("home", "uri")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
def ui(port: int, uri: str | None, **options: Any) -> int:
    """Show MLflow's pages on http://127.0.0.1:5000, to this machine alone."""
    home = find_home(options, is_written=True, has_store=True)
    from sweeper.tracking import process

    store = process.store_uri(home, uri)
    file = process.sqlite_file(store)
    if not file:
        click.echo(f"{store} is a server: open it in a browser.")
        return 0
    if not file.exists():
        raise InputError(
            f"{file}: nothing to show yet.\nTrain first: {display.command('run', 'NAME', home=home.path)}"
        )
    click.echo(f"MLflow on http://127.0.0.1:{port} (Ctrl-C ends it)")
    serve = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1"]
    return subprocess.run([*serve, "--port", str(port)], check=False).returncode
