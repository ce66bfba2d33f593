"""Terminal output: tables, progress and durations; everything but results goes to standard error."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trainables.config import Value, canonical_json
from trainables.shell import program

if TYPE_CHECKING:  # rich is imported when something is drawn; errors that name a command do not need it
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

LINE_EVERY_S, MAX_LINE_EVERY_S = 10.0, 300.0
"""Seconds between two lines of progress where there is no terminal, in the beginning and after hours."""


def notes() -> Console:
    """Return the console for progress and remarks, on standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


_UNITS = (("days", 86400), ("h", 3600), ("min", 60))


def duration(seconds: float) -> str:
    """Return a duration in a readable unit, for example `3 min` or `2.5 days`."""
    return durations(seconds, seconds)


def durations(least_s: float, most_s: float) -> str:
    """Return a range of durations in the unit of the longer one, for example `2.5 to 4.0 min`."""
    unit, size = next(((unit, size) for unit, size in _UNITS if most_s >= 1.5 * size), ("s", 1))
    least, most = (
        f"{s / size:,.0f}" if s >= 10 * size or size == 1 else f"{s / size:.1f}" for s in (least_s, most_s)
    )
    return f"{least} to {most} {unit}" if least != most else f"{most} {unit}"


def memory(gib: float) -> str:
    """Return an amount of memory in a readable unit, for example `350 MiB`."""
    return f"{gib:.1f} GiB" if gib >= 1 else f"{gib * 1024:.0f} MiB"


def command(word: str, *arguments: object, **options: object) -> str:
    """Return a command of this program, as a user can type it.

    Args:
        word: The command, for example `run`.
        arguments: Positional arguments, such as names of sweeps.
        options: Options by name, `label` for `--as`; those that are None, False or empty are left out.
    """
    words = [word, *map(str, arguments)]
    for name, value in options.items():
        if value is not None and value is not False and str(value):
            flag = "--as" if name == "label" else f"--{name.replace('_', '-')}"
            words += [flag] if value is True else [flag, str(value)]
    return f"{program('sweeper')} {shlex.join(words)}"


def typed_value(value: Value) -> str:
    """Return the value of a field as a user types it: 10 for 10.0, at most 12 digits."""
    if isinstance(value, float):
        return f"{value:.12g}"
    return canonical_json(value) if isinstance(value, list | tuple | dict) else str(value)


def count(number: int, noun: str, plural: str = "") -> str:
    """Return a number of things in words, for example `1 pack` or `2,000 packs`."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def runs(number: int) -> str:
    """Return a number of runs in words, for example `1 run`."""
    return count(number, "run")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Return a table whose columns of numbers are right-aligned."""
    from rich.markup import escape
    from rich.table import Table

    built = Table(title=title, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        is_numeric = all(isinstance(row[number], int | float) for row in rows)
        built.add_column(column, justify="right" if is_numeric else "left", overflow="fold")
    for row in rows:
        built.add_row(*(f"{value:,}" if isinstance(value, int) else escape(str(value)) for value in row))
    return built


class Counter:
    """Progress of work: a bar on a terminal, elsewhere a line now and then.

    Attributes:
        done: Units of finished work.
    """

    def __init__(
        self, console: Console, bar: Progress | None, what: str, unit: str, total: int, before: int = 0
    ) -> None:
        self._console, self._bar = console, bar
        self._what, self._unit, self._total, self._before = what, unit, total, before
        self._task = bar.add_task(what, total=total, completed=before, unit=unit) if bar else None
        self.done, self._begun, self._said = 0, time.monotonic(), 0.0
        self._first: tuple[float, int] | None = None

    def __call__(self, num_done: int) -> None:
        """Count units of finished work."""
        self.done += num_done
        reached = self._before + self.done
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=reached)
            return
        elapsed = time.monotonic() - self._begun
        pause = min(max(LINE_EVERY_S, elapsed / 10), MAX_LINE_EVERY_S)
        if elapsed - self._said >= pause or reached >= self._total:
            self._said = elapsed
            share = f"{self._what}: {reached / self._total:4.0%} of {self._total:,} {self._unit}"
            self._console.print(f"{share}, {duration(elapsed)} elapsed{self._time_left(elapsed)}")

    def _time_left(self, elapsed: float) -> str:
        """Return the time left, by the pace since the first block, since workers take seconds to start."""
        if self._first is None:
            self._first = elapsed, self.done
        begun, before = self._first
        num_left = self._total - self._before - self.done
        if self.done == before or num_left <= 0:
            return ""
        left = (elapsed - begun) * num_left / (self.done - before)
        return f", about {duration(left)} left"


@contextmanager
def counting(console: Console, what: str, unit: str, total: int, before: int = 0) -> Iterator[Counter]:
    """Show progress while the context is open.

    Args:
        console: Console to show it on.
        what: The work, for example `training`.
        unit: What is counted, for example `run-steps`.
        total: Number of units in all.
        before: Number of units that were done before.
    """
    if not console.is_terminal:
        yield Counter(console, None, what, unit, total, before)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f}% of {task.total:,.0f} {task.fields[unit]}"),
        TimeElapsedColumn(),
        TextColumn("elapsed,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Counter(console, bar, what, unit, total, before)
