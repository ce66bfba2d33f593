"""Error messages of the commands."""

import sqlite3

import click

from sweeper import display
from sweeper.home import Home


def usage_message(error: click.ClickException) -> str:
    """Return the message for a command line that cannot be parsed."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "python -m sweeper"
    return f"{error.format_message()}\nSee {command} --help."


def damage_message(home: Home, found: object) -> str:
    """Return the message for a ledger whose file is damaged."""
    again = display.command("rebuild", home=home.path)
    return f"{home.ledger} is damaged: {found}\nMove it away, then rebuild it from the storage: {again}"


def failure_message(home: Home | None, error: Exception) -> str:
    """Return the message for an error of the machine.

    Args:
        home: The home in use, if any.
        error: The error.
    """
    # Only this class itself means a damaged file; its subclasses are other errors.
    if home and type(error) is sqlite3.DatabaseError:
        return damage_message(home, error)
    what = f"{home.ledger}: {error}" if home and isinstance(error, sqlite3.Error) else error
    return f"Error: {what}\nFix the cause, then run the same command to resume."
