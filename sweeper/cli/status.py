"""The command `status`: how far the sweeps of a home are."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import click

from sweeper import display
from sweeper.cli.options import HomeOptions, SweepOptions, with_home_alone, with_json, with_sweep
from sweeper.cli.resolve import find_home, known_sweeps, open_records
from sweeper.cli.values import PluginName
from sweeper.home import is_held
from trainables.contracts import SWEEPS

if TYPE_CHECKING:
    from sweeper.ledger.progress import Progress
    from sweeper.ledger.rows import RunStatus, SweepId

ALWAYS = ("planned", "done")
"""Statuses that are shown even if no run has them."""


@click.command()
@click.argument("names", type=PluginName(SWEEPS), nargs=-1, metavar="[NAME...]")
@with_sweep
@with_home_alone
@with_json
def status(names: tuple[str, ...], chosen: SweepOptions, place: HomeOptions, as_json: bool) -> None:
    """Show the progress of sweeps, also while they train. Without a name, of all in the home."""
    home = find_home(place)
    records = open_records(home, names, chosen)
    sweeps = known_sweeps(records, names, chosen, home) if names else records.sweeps()
    from sweeper.ledger.progress import progress
    from sweeper.ledger.rows import RunStatus

    is_running = is_held(home.path)
    found = {sweep: progress(records, sweep, is_running=is_running) for sweep in sweeps}
    statuses: tuple[RunStatus, ...] = get_args(RunStatus)

    def told(sweep: SweepId, progress: Progress) -> dict[str, Any]:
        identity = {"sweep": sweep.name, "scale": sweep.scale, "label": sweep.label, "home": str(home.path)}
        counts = {status: progress.counts[status] for status in statuses}
        return identity | {"counts": counts, "steps": progress.steps, "steps_done": progress.steps_done}

    if as_json:
        all_told = [told(*each) for each in found.items()]
        click.echo(json.dumps(all_told[0] if len(names) == 1 else {"sweeps": all_told}))
        return
    from rich.console import Console

    from sweeper.analysis.troubles import troubles

    console = Console(highlight=False)
    shown = [each for each in statuses if each in ALWAYS or any(told.counts[each] for told in found.values())]
    rows = [_row(str(sweep), shown, each) for sweep, each in found.items()]
    console.print(display.table(str(home.path), ("sweep", *shown, "steps"), rows))
    for sweep, each in found.items():
        if left_s := each.left_s(time.time()):
            console.print(f"{sweep}: about {display.duration(left_s)} left.", soft_wrap=True, markup=False)
        for line in troubles(records, sweep):
            console.print(line, soft_wrap=True, markup=False)


def _row(name: str, statuses: Sequence[RunStatus], progress: Progress) -> list[object]:
    share = progress.steps_done / progress.steps if progress.steps else 0.0
    # Rounded down: not everything is done before it is.
    return [name, *(progress.counts[status] for status in statuses), f"{int(100 * share)} %"]
