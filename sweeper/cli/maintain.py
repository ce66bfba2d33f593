"""Commands that maintain a home: `sync`, `verify`, `prune`, `rebuild`, `ui`."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import click

from sweeper import display
from sweeper.cli.messages import damage_message
from sweeper.cli.options import (
    MANY,
    NAME,
    HomeOptions,
    SweepOptions,
    with_home,
    with_home_alone,
    with_sweep,
    with_uri,
)
from sweeper.cli.resolve import changing, check_ledger, check_stored, find_home, known_sweeps, open_records
from sweeper.cli.values import Number
from sweeper.home import Home, lock_home
from trainables.errors import InputError
from trainables.layout import Layout

GRACE_S = 5.0
"""Longest time for MLflow's server to end by itself."""


@click.command()
@MANY
@with_sweep
@with_home
@with_uri
def sync(names: tuple[str, ...], chosen: SweepOptions, place: HomeOptions, uri: str | None) -> int:
    """Bring MLflow up to date with the ledger."""
    home = find_home(place, is_written=True, has_store=True)
    sweeps = known_sweeps(open_records(home, names, chosen), names, chosen, home)
    from sweeper.tracking import process

    pending = process.run_sync(home, uri, sweeps, is_anew=True)
    if pending:
        click.echo(
            f"Not in MLflow yet: {display.count(pending, 'entry', 'entries')} (one per sweep, draw and run).",
            err=True,
        )
        return 3
    click.echo(f"{process.store_uri(home, uri)} is up to date.")
    return 0


@click.command()
@NAME
@with_sweep
@with_home
@with_uri
def verify(name: str, chosen: SweepOptions, place: HomeOptions, uri: str | None) -> int:
    """Check blocks, ledger, exports and MLflow against each other. The exit code is 0 only if all agree."""
    home = find_home(place, has_store=True)
    check_stored(home, must_exist=False)
    check_ledger(home, [name], chosen)
    from sweeper.ledger.verify import check
    from sweeper.tracking import process

    if damage := home.damage():
        problems = [damage_message(home, damage)]
    else:
        sweeps = known_sweeps(open_records(home, [name], chosen), [name], chosen, home)
        problems = check(home.ledger, home.storage)
        problems += process.run_verify(home, uri, sweeps)
    for problem in problems:
        click.echo(problem)
    if any("damaged" in problem for problem in problems):
        click.echo("What the ledger has read stays valid. Copy damaged files back from a backup.", err=True)
    click.echo(
        f"Problems found: {len(problems)}." if problems else "Blocks, ledger, exports and MLflow agree."
    )
    return 1 if problems else 0


@click.command()
@MANY
@with_sweep
@with_home
def prune(names: tuple[str, ...], chosen: SweepOptions, place: HomeOptions) -> None:
    """Delete the states of finished runs: gigabytes at paper scale. Results stay; more training starts again from step 0."""
    with changing(names, chosen, place) as (home, ledger, sweeps):
        kept = {key for key, *_ in ledger.records.needed_states()}
        keys = kept & {key for sweep in sweeps for key in ledger.records.finished(sweep)}
        before = _state_bytes(home)
        if keys:
            ledger.drop_states(keys)
        else:
            ledger.prune()  # finishes a prune that was killed
    freed = display.memory((before - _state_bytes(home)) / 2**30)
    if not keys and before == _state_bytes(home):
        click.echo("Nothing to delete: no finished run of these sweeps keeps a state.")
        return
    click.echo(
        f"Deleted the states of {display.runs(len(keys))}: {freed} freed. Points, encodings, weights and pictures stay;"
        " to train these runs further, they start from step 0."
    )


def _state_bytes(home: Home) -> int:
    return sum(path.stat().st_size for path in Layout(home.storage).states())


@click.command()
@with_home
def rebuild(place: HomeOptions) -> int:
    """Rebuild a lost ledger from the storage. The exit code is 1 if some of it cannot be read."""
    home = find_home(place, is_written=True)
    check_stored(home)
    from sweeper.ledger import verify as checking

    with lock_home(home.path):
        found = checking.rebuild(home.ledger, home.storage)
        home.remember_storage()
    for problem in found.problems:
        click.echo(problem)
    click.echo(f"{home.ledger} has been rebuilt from {found.num_taken} blocks.")
    return 1 if found.problems else 0


@click.command()
@with_home_alone
@with_uri
@click.option("--port", type=Number(1, 65535, 5000), default=5000, show_default=True)
def ui(place: HomeOptions, port: int, uri: str | None) -> int:
    """Serve MLflow's pages, for this machine only."""
    home = find_home(place, is_written=True, has_store=True)
    from sweeper.tracking import process
    from sweeper.tracking.moved import bring_artifacts_along

    store = process.store_uri(home, uri)
    file = process.sqlite_file(store)
    if not file:
        click.echo(f"{store} is a server: open it in a browser.")
        return 0
    if not file.exists():
        raise InputError(
            f"{file} does not exist yet.\nTrain first: {display.command('run', 'NAME', home=home.path)}"
        )
    if file == home.mlflow:
        bring_artifacts_along(home)
    if _answers(port):
        raise InputError(
            f"--port {port}: in use by another program.\nChoose another, for example --port {port + 1}."
        )
    serve = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1"]
    # One person looks at them. Each of MLflow's four workers and eight processes for jobs would import it anew, and
    # workers that do not start within seconds, as on a busy machine, would be replaced again and again.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}
    with _group([*serve, "--port", str(port), "--workers", "1"], environment) as server:
        click.echo("Starting MLflow, which takes up to half a minute ...", err=True)
        while server.poll() is None and not _answers(port):
            time.sleep(0.2)
        if server.poll() is None:
            click.echo(f"MLflow on http://127.0.0.1:{port} (Ctrl-C to stop)")
        return server.wait()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _group(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a process group of its own, of which nothing is left when the context ends."""
    # 2: standard error
    with subprocess.Popen(command, stdout=2, env=environment, start_new_session=True) as process:
        try:
            yield process
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_S)
