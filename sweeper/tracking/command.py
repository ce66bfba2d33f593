"""The command line of the sync process: the driver builds it, the process parses it."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweeper.home import Home
from sweeper.ledger.rows import SweepId
from trainables.errors import InputError

How = Literal["--once", "--anew", "--follow", "--verify"]

_HELP: dict[How, str] = {
    "--once": "deliver everything that is committed, then exit",
    "--anew": "like --once, but first compare with MLflow and replace runs with points that are not in the ledger",
    "--follow": "keep delivering, from a line on standard input until its end; each line asks for it at once",
    "--verify": "compare MLflow with the ledger and print the differences; exit code 1 if there are any",
}


@dataclass(frozen=True)
class Command:
    """The parsed command line of the sync process.

    Attributes:
        home: Home whose ledger is delivered.
        uri: Address of the MLflow store, None for the file in the home.
        sweeps: Sweeps to deliver, None for all.
        how: What to do.
    """

    home: Home
    uri: str | None
    sweeps: tuple[SweepId, ...] | None
    how: How


def command(home: Home, uri: str | None, sweeps: Sequence[SweepId] | None, how: How) -> list[str]:
    """Build the command line that `parse` reads back as a `Command`."""
    named = [f"--sweep={sweep}" for sweep in sweeps or ()]
    where = [f"--storage={home.storage}", *([f"--uri={uri}"] if uri else [])]
    return [sys.executable, "-m", "sweeper.tracking.worker", str(home.path), *where, *named, how]


def parse(arguments: Sequence[str] | None) -> Command:
    """Parse a command line, by default the one of this process.

    Raises:
        InputError: A sweep is not written as NAME-SCALE or NAME-SCALE-LABEL.
    """
    parser = argparse.ArgumentParser(
        prog="python -m sweeper.tracking.worker", description="Mirror the ledger of a home in MLflow."
    )
    parser.add_argument("home", type=Path, help="home folder, which contains the ledger")
    parser.add_argument(
        "--storage", type=Path, help="folder of the blocks (default: the storage of the home)"
    )
    parser.add_argument("--uri", help="address of the MLflow store (default: mlflow.db in the home)")
    parser.add_argument(
        "--sweep",
        action="append",
        dest="sweeps",
        metavar="NAME-SCALE[-LABEL]",
        help="sweep to deliver; repeat it for several (default: all)",
    )
    group = parser.add_mutually_exclusive_group(required=True)
    for how, text in _HELP.items():
        group.add_argument(how, action="store_const", const=how, dest="how", help=text)
    given = parser.parse_args(arguments)
    sweeps = tuple(map(_sweep, given.sweeps)) if given.sweeps else None
    return Command(Home.at(given.home, given.storage), given.uri, sweeps, given.how)


def _sweep(text: str) -> SweepId:
    words = text.split("-", 2)
    if len(words) < 2:
        raise InputError(
            f"'{text}' is not a sweep.\n"
            "Write --sweep=NAME-SCALE or --sweep=NAME-SCALE-LABEL, for example --sweep=factorvae_gamma-laptop."
        )
    return SweepId(*words)
