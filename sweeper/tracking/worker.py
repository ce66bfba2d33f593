"""MLflow shows what the ledger has: a projection, by a process of its own.

    python -m sweeper.tracking.worker HOME [--storage DIR] [--uri URI] [--sweep NAME-SCALE[-LABEL] ...] --once

An experiment is a sweep; in it are MLflow runs of three levels: the sweep, its draws, their runs. Everything is made
from committed blocks and can be made again: an MLflow run is looked for by its tags before it is created, and a point
sent twice has the time it was stored with, so MLflow keeps it once. Hence this process may be killed at any moment,
and MLflow may be away for as long as it likes.

MLflow takes no point back: an MLflow run that holds what is not committed, as after a ledger was rebuilt without a
damaged block, is deleted and made again by `--anew`, which believes nothing but MLflow itself.

`--follow` goes on until its standard input ends or has a line. Exit codes: 0 all is delivered, 1 `--verify` found
something, 2 it cannot be done as asked, 3 it could not be delivered now.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

from sweeper import display
from sweeper.home import Home
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.tracking.command import Command, command, parse
from sweeper.tracking.diff import differences
from sweeper.tracking.follow import CatchUp, follow
from sweeper.tracking.outline import outline
from sweeper.tracking.process import delivery_record, sqlite_file, store_uri
from sweeper.tracking.store import Store, UndeliveredError, reaching
from sweeper.tracking.sync import Projection, lock_projection
from sweeper.tracking.sync_state import Deliveries
from trainables.errors import InputError


def deliver(
    home: Home, uri: str | None, sweeps: Sequence[SweepId] | None = None, *, is_anew: bool = False
) -> None:
    """Deliver what the ledger has and MLflow lacks.

    Args:
        home: Whose ledger.
        uri: MLflow store, None for the one in the home.
        sweeps: Which ones, None for all.
        is_anew: Forget first what was delivered, and replace the MLflow runs that hold what is not committed.

    Raises:
        HeldError: Another process is at it.
        InputError: No ledger, no such sweep, or a store that cannot be one.
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
    """Be the one who projects a home; anew means that what was delivered of the sweeps is forgotten first."""
    uri = store_uri(home, uri)
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
    """What MLflow lacks or has too much of compared with the ledger, one line each; asks MLflow itself.

    Raises:
        InputError: No ledger, no such sweep, or a store that cannot be one.
        UndeliveredError: MLflow cannot be reached.
    """
    uri = store_uri(home, uri)
    if (file := sqlite_file(uri)) and not file.exists():
        return [f"There is no {file}."]
    with closing(Records.open(home.ledger)) as records, reaching(uri):
        store, chosen = Store(home, uri), records.sweeps() if sweeps is None else sweeps
        shown = [outline(records, home, sweep) for sweep in chosen]
        return [line for each in shown for line in differences(records, home.storage, each, store)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
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
                again = display.command("sync", "NAME", home=asked.home.path, tracking_uri=asked.uri)
                print(f"To bring MLflow up to date: {again}", file=sys.stderr)
            return 1 if lines else 0
        if asked.how == "--follow":
            os.nice(10)
            follow(lambda: _projecting(*given), sys.stdin)
        else:
            deliver(*given, is_anew=asked.how == "--anew")
        return 0
    except UndeliveredError as error:
        if is_verifying:
            print(error)
            return 1
        if asked.how != "--follow":
            again = shlex.join(["python", *command(*given, asked.how)[1:]])
            print(f"To deliver it: {again}", file=sys.stderr)
        print(error, file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
