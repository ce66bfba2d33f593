"""Error messages of the commands."""

import sqlite3

import click

import search_spaces
from sweeper import display
from sweeper.home import Home
from trainables import contracts
from trainables.durable import DamagedBlockError
from trainables.errors import did_you_mean
from trainables.shell import program

_SWEEPS = "a sweep.\nValid: {sweeps}."
_LACKING = {
    "name": _SWEEPS,
    "names": _SWEEPS,
    "kind": "a kind of figure (3, 4, 5, 6 or metrics), then sweeps.\nFor example: figure 4 factorvae_gamma",
    "data": "a data set.\nValid: {data}, or the path of your own images.",
}
"""What to say where an argument is lacking."""


def usage_message(error: click.ClickException) -> str:
    """Return the message for a command line that cannot be parsed."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message()
    context = getattr(error, "ctx", None)
    command = context.command_path if context else program("sweeper")
    return f"{_usage(error)}\nSee {command} --help."


def _usage(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption):
        guess = did_you_mean(error.option_name, error.possibilities or (), cutoff=0.6)
        return f"Unknown option '{error.option_name}'.{guess}"
    if isinstance(error, click.MissingParameter) and isinstance(error.param, click.Argument):
        valid = {"sweeps": ", ".join(search_spaces.names()), "data": ", ".join(contracts.data_set_names())}
        return f"Missing: {_LACKING[str(error.param.name)].format(**valid)}"
    if isinstance(error, click.MissingParameter) and isinstance(error.param, click.Option):
        return f"Missing: {error.param.opts[0]} ({error.param.help})."
    return error.format_message()


def damage_message(home: Home, found: object) -> str:
    """Return the message for a ledger whose file is damaged."""
    again = display.command("rebuild", home=home.path)
    return f"{home.ledger} is damaged: {found}.\nMove this file away, then rebuild the ledger from the storage: {again}"


def failure_message(home: Home | None, error: Exception) -> str:
    """Return the message for an error of the machine.

    Args:
        home: The home in use, if any.
        error: The error.
    """
    # Only this class itself means a damaged file; its subclasses are other errors.
    if home and type(error) is sqlite3.DatabaseError:
        return damage_message(home, error)
    if home and isinstance(error, sqlite3.Error) and home.ledger.is_dir():
        return (
            f"{home.ledger} is a folder; expected a file.\nMove it away, or choose another home with --home."
        )
    if isinstance(error, DamagedBlockError):
        return f"Error: {error}\nCopy the file back from a backup. Other results are not affected."
    what = f"{home.ledger}: {error}" if home and isinstance(error, sqlite3.Error) else error
    return f"Error: {what}\nFix the cause, then run the same command to resume."
