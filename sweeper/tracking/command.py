"""The command line of the projecting process: the driver writes it, the process reads it."""

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
    "--once": "deliver what is committed",
    "--anew": "the same, after comparing everything with MLflow and deleting what is not committed there",
    "--follow": "go on until standard input ends or has a line",
    "--verify": "compare MLflow with the ledger",
}


@dataclass(frozen=True)
class Command:
    """What the process is asked for.

    Attributes:
        home: Whose ledger.
        uri: MLflow store, None for the one in the home.
        sweeps: Which ones, None for all.
        how: What to do.
    """

    home: Home
    uri: str | None
    sweeps: tuple[SweepId, ...] | None
    how: How


def command(home: Home, uri: str | None, sweeps: Sequence[SweepId] | None, how: How) -> list[str]:
    """The command line that asks for this, see `Command`."""
    named = [f"--sweep={sweep}" for sweep in sweeps or ()]
    where = [f"--storage={home.storage}", *([f"--uri={uri}"] if uri else [])]
    return [sys.executable, "-m", "sweeper.tracking.worker", str(home.path), *where, *named, how]


def parse(arguments: Sequence[str] | None) -> Command:
    """Read a command line, that of this process if none is given.

    Raises:
        InputError: Something is no sweep.
    """
    parser = argparse.ArgumentParser(
        prog="python -m sweeper.tracking.worker", description="Project a ledger into MLflow."
    )
    parser.add_argument("home", type=Path, help="folder of the ledger")
    parser.add_argument("--storage", type=Path, help="folder of the blocks, if it is not in the home")
    parser.add_argument("--uri", help="MLflow store, if it is not the file in the home")
    parser.add_argument("--sweep", action="append", dest="sweeps", metavar="NAME-SCALE[-LABEL]")
    group = parser.add_mutually_exclusive_group(required=True)
    for how, text in _HELP.items():
        group.add_argument(how, action="store_const", const=how, dest="how", help=text)
    given = parser.parse_args(arguments)
    sweeps = tuple(map(_sweep, given.sweeps)) if given.sweeps else None
    return Command(Home.at(given.home, given.storage), given.uri, sweeps, given.how)


def _sweep(text: str) -> SweepId:
    words = text.split("-", 2)
    if len(words) < 2:
        raise InputError(f"'{text}' is no sweep; write NAME-SCALE or NAME-SCALE-LABEL, as in the ledger.")
    return SweepId(*words)
