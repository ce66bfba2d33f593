"""Mirror the ledger in MLflow.

    python -m sweeper.tracking.worker HOME [--storage DIR] [--uri URI] [--sweep NAME-SCALE[-LABEL] ...] --once

An experiment is a sweep, with MLflow runs on three levels: the sweep, its draws and their runs. Everything is made from
committed blocks and can be made again: an MLflow run is searched for by its tags before it is created, and a point that
is sent twice has its stored time both times, so MLflow keeps it once. This separate process may therefore be killed at
any moment, and MLflow may be unavailable for any length of time.

MLflow cannot delete single points. An MLflow run that contains points that are not in the ledger, for example after the
ledger was rebuilt without a damaged block, is deleted and created again by `--anew`, which trusts only MLflow itself.

`--follow` waits for a line on standard input and continues until it ends; each line asks for delivery at once. Exit codes: 0 everything is delivered, 1 `--verify`
found differences, 2 the request is invalid, 3 delivery is not possible now.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from sweeper import display
from sweeper.home import Home
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.tracking.command import Command, parse
from sweeper.tracking.diff import differences
from sweeper.tracking.follow import CatchUp, follow
from sweeper.tracking.outline import outline
from sweeper.tracking.process import delivery_record, sqlite_file, store_uri
from sweeper.tracking.store import Store, UndeliveredError, reaching, warm_up
from sweeper.tracking.sync import Projection, lock_projection
from sweeper.tracking.sync_state import Deliveries
from trainables import plugin_store
from trainables.errors import InputError


def deliver(
    home: Home, uri: str | None, sweeps: Sequence[SweepId] | None = None, *, is_anew: bool = False
) -> None:
    """Deliver what the ledger has and MLflow lacks.

    Args:
        home: Home whose ledger is delivered.
        uri: Address of the MLflow store, None for the file in the home.
        sweeps: Sweeps to deliver, None for all.
        is_anew: First forget what was delivered, and replace MLflow runs that contain points that are not in the ledger.

    Raises:
        HeldError: Another process is syncing this home.
        InputError: There is no ledger, a sweep is unknown, or the store is invalid.
        UndeliveredError: Some or all of it could not be delivered.
    """
    with _projecting(home, uri, sweeps, is_anew=is_anew) as catch_up:
        lacking = catch_up()
    if lacking:
        raise UndeliveredError("\n".join(lacking))


@contextmanager
def _projecting(
    home: Home, uri: str | None, sweeps: Sequence[SweepId] | None, *, is_anew: bool = False
) -> Iterator[CatchUp]:
    """Hold the sync lock of a home and yield its delivery function; `is_anew` first forgets what was delivered."""
    uri = store_uri(home, uri)
    plugin_store.add_kept(home.storage)
    with ExitStack() as stack:
        records = stack.enter_context(closing(Records.open(home.ledger)))
        stack.enter_context(lock_projection(home))
        with reaching(uri):
            deliveries = stack.enter_context(closing(Deliveries(delivery_record(home), uri)))
            if is_anew:
                deliveries.forget(sweeps)
            projection = Projection(home, records, deliveries, Store(home, uri), is_anew=is_anew)

        def catch_up() -> list[str]:
            with reaching(uri):
                return projection.catch_up(sweeps)

        yield catch_up


def compare(home: Home, uri: str | None, sweeps: Sequence[SweepId] | None = None) -> list[str]:
    """Compare MLflow itself with the ledger; return one line for each difference.

    Raises:
        InputError: There is no ledger, a sweep is unknown, or the store is invalid.
        UndeliveredError: MLflow cannot be reached.
    """
    uri = store_uri(home, uri)
    if (file := sqlite_file(uri)) and not file.exists():
        return [f"The MLflow store {file} does not exist."]
    plugin_store.add_kept(home.storage)
    with closing(Records.open(home.ledger)) as records, reaching(uri):
        store, chosen = Store(home, uri), records.sweeps() if sweeps is None else sweeps
        shown = [outline(records, home, sweep) for sweep in chosen]
        return [line for each in shown for line in differences(records, home.storage, each, store)]


def _sync(asked: Command) -> str:
    """Return the user's command that delivers the same sweeps."""
    sweeps = asked.sweeps or ()
    places = {(sweep.scale, sweep.label) for sweep in sweeps}
    scale, label = places.pop() if len(places) == 1 else ("", "")
    names = [sweep.name for sweep in sweeps] if scale else ["NAME"]
    home = asked.home.path
    return display.command("sync", *names, scale=scale, label=label, home=home, tracking_uri=asked.uri)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        return _do(parse(arguments))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2


def _do(asked: Command) -> int:
    given = asked.home, asked.uri, asked.sweeps
    is_verifying = asked.how == "--verify"
    try:
        if is_verifying:
            lines = compare(*given)
            if lines:
                print(*lines, sep="\n")
                print(f"To bring MLflow up to date: {_sync(asked)}", file=sys.stderr)
            return 1 if lines else 0
        if asked.how == "--follow":
            os.nice(10)
            warm_up()
            if sys.stdin.readline():  # else the driver ended before it had anything to deliver
                follow(lambda: _projecting(*given), sys.stdin)
        else:
            deliver(*given, is_anew=asked.how == "--anew")
        return 0
    except UndeliveredError as error:
        if is_verifying:
            print(error)
            return 1
        print(error, file=sys.stderr)
        if asked.how != "--follow":
            print(f"Nothing is lost. When the server answers: {_sync(asked)}", file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
