"""What a command says when it fails."""

import sqlite3

import click

from sweeper import display
from sweeper.home import Home


def usage_message(error: click.ClickException) -> str:
    """Of a command line that does not parse."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "python -m sweeper"
    return f"{error.format_message()}\nSee {command} --help."


def damage_message(home: Home, found: object) -> str:
    """Of a ledger whose file is damaged."""
    again = display.command("rebuild", home=home.path)
    return f"{home.ledger} is damaged: {found}\nMove it away, then rebuild it from the storage: {again}"


def failure_message(home: Home | None, error: Exception) -> str:
    """Of a machine that failed while working.

    Args:
        home: The one in use, if any.
        error: What happened.
    """
    # Exactly this class: its subclasses are other faults than a file that is not what it should be.
    if home and type(error) is sqlite3.DatabaseError:
        return damage_message(home, error)
    what = f"{home.ledger}: {error}" if home and isinstance(error, sqlite3.Error) else error
    return f"Error: {what}\nFix the cause, then run the same command to resume."
