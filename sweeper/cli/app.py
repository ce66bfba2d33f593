"""The command group with its exit codes, and the commands `list`, `plan` and `run`.

Exit codes: 0 the command did all that it should; 1 some runs failed or diverged, or `verify` or `rebuild` found problems;
2 something that was typed, or a file or folder that it names, is invalid; 3 an error of the machine, for example a full
disk; 130 stopped by the user.
"""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

import search_spaces
from sweeper.cli.analyze import calibrate, evaluate, export, figure, show_front
from sweeper.cli.checking import check
from sweeper.cli.labels import forget, rename
from sweeper.cli.maintain import prune, rebuild, sync, ui, verify
from sweeper.cli.messages import failure_message, usage_message
from sweeper.cli.options import (
    MANY,
    HomeOptions,
    MachineOptions,
    SweepOptions,
    VariantOptions,
    with_home,
    with_json,
    with_machine,
    with_machine_to_plan,
    with_price,
    with_reading,
    with_sweep,
    with_uri,
    with_variant,
)
from sweeper.cli.resolve import (
    check_stored,
    find_home,
    find_machine,
    find_questions,
    open_records,
    say,
    settle_storage,
)
from sweeper.cli.status import status
from sweeper.home import refresh
from trainables import __version__, plugins
from trainables.durable import ConflictError, DamagedBlockError
from trainables.errors import InputError
from trainables.reading import Reading
from trainables.shell import program
from trainables.stopping import STOPPED, interrupt_at_signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    found: dict[str, Any] = {}
    try:
        interrupt_at_signals()
        plugins.add_from_environment()
        code = sweeper.main(args=arguments, prog_name=program("sweeper"), standalone_mode=False, obj=found)
        return code if isinstance(code, int) else 0
    except InputError as error:
        click.echo(str(error), err=True)
        return 2
    except click.ClickException as error:
        click.echo(usage_message(error), err=True)
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo(STOPPED, err=True)
        return 130
    except (OSError, sqlite3.Error, DamagedBlockError, ConflictError) as error:
        click.echo(failure_message(found.get("home"), error), err=True)
        return 3


@click.group(context_settings={"max_content_width": 120})
@click.version_option(__version__, prog_name="sweeper", message="%(prog)s %(version)s")
def sweeper() -> None:
    """Sweep disentangling models; answer with a Pareto front of reconstruction against disentanglement."""


@sweeper.command("list")
@with_json
def list_sweeps(as_json: bool) -> None:
    """List the sweeps and the questions that they answer."""
    found = {name: search_spaces.load(name) for name in search_spaces.names()}
    if as_json:
        click.echo(json.dumps({name: sweep.question for name, sweep in found.items()}))
        return
    from rich.console import Console

    from sweeper import display

    rows = [(name, each.model, ", ".join(each.scales), each.question) for name, each in found.items()]
    Console().print(display.table("Sweeps", ("name", "model", "scales", "question"), rows))


@sweeper.command("plan")
@MANY
@with_sweep
@with_variant
@with_reading
@with_home
@with_machine_to_plan
@with_json
@with_price
def show_plan(
    names: tuple[str, ...],
    chosen: SweepOptions,
    variant: VariantOptions,
    reading: Reading,
    place: HomeOptions,
    where: MachineOptions,
    price: float | None,
    as_json: bool,
) -> None:
    """Show runs, packs, memory, time and cost before anything starts."""
    home, machine = find_home(place), find_machine(where)
    questions = find_questions(names, chosen, variant, reading, home)
    from rich.console import Console

    from sweeper import display
    from sweeper.machines.clusters import ClusterMeasure, cluster, described
    from sweeper.machines.probe import Probe, measure_together
    from sweeper.machines.resources import local_resources
    from sweeper.scheduling.estimate import announced, plan_table
    from sweeper.scheduling.placing import prepare
    from sweeper.scheduling.plan import plan

    refresh(home, say)
    records = open_records(home) if home.ledger.exists() else None
    with Probe() as probe:
        planned = plan(questions, probe, records, display.notes())
        if machine.address is None:
            here, measure = local_resources(), announced(probe.measure, display.notes())
            prepared = prepare(machine, planned, records, here, measure, measure_together)
        else:
            with cluster(machine) as there:
                for line in described(machine, there):
                    say(line)
                measure = announced(ClusterMeasure(there.gpu, machine.cluster_gpus > 0, say), display.notes())
                prepared = prepare(machine, planned, records, there, measure, None)
    expected = prepared.expected
    if expected is None:
        raise InputError(
            f"--address {machine.address}: no node is free to measure a pack on.\n"
            "Wait until one is, or ask for fewer --gpus-per-pack."
        )
    cost = price * expected.duration_s / 3600 if price is not None else None
    if as_json:
        click.echo(json.dumps(asdict(expected) | {"cost": cost}))
        return
    console = Console(highlight=False)
    console.print(plan_table(planned, records))
    for note in prepared.notes:
        console.print(note, soft_wrap=True, markup=False)
    console.print(expected.sentence() + (f" Cost: {cost:.2f}." if cost is not None else ""), soft_wrap=True)


@sweeper.command()
@MANY
@with_sweep
@with_variant
@with_reading
@with_home
@with_uri
@with_machine
@with_json
@click.option("--yes", is_flag=True, help="start however long it takes")
def run(
    names: tuple[str, ...],
    chosen: SweepOptions,
    variant: VariantOptions,
    reading: Reading,
    place: HomeOptions,
    where: MachineOptions,
    uri: str | None,
    as_json: bool,
    yes: bool,
) -> int:
    """Train what is missing, write the front, update MLflow. Run again to resume."""
    home = find_home(place, is_written=True, has_store=True)
    questions, machine = find_questions(names, chosen, variant, reading, home), find_machine(where)
    from sweeper import display
    from sweeper.pipeline import Pipeline

    check_stored(home, must_exist=False)
    settle_storage(home)
    outcome = Pipeline(questions, home, machine, uri, yes, display.notes()).run()
    if as_json:
        click.echo(json.dumps(outcome.counts()))
    else:
        from sweeper.cli.closing import show_outcome

        show_outcome(outcome, questions, home)
    return outcome.exit_code


for command in (
    status,
    check,
    show_front,
    export,
    figure,
    evaluate,
    calibrate,
    sync,
    verify,
    prune,
    rename,
    forget,
    rebuild,
    ui,
):
    sweeper.add_command(command)
