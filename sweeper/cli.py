"""The command line: what a person types, what they are told, the exit code.

0 everything planned is done; 1 some runs failed or diverged; 2 something that was typed or pointed at; 3 the machine
failed while working; 130 stopped by the user.
"""

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from sweeper._arguments import (
    NAMES,
    Place,
    check_ledger,
    check_output,
    check_stored,
    common_options,
    damage_words,
    failure_words,
    find_home,
    find_machine,
    find_questions,
    known_sweeps,
    open_records,
    register,
    settle_storage,
    usage_words,
)
from sweeper.home import is_held, lock_home
from trainables import plugins
from trainables.durable import ConflictError, DamagedBlockError
from trainables.errors import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    found: dict[str, Any] = {}
    try:
        code = sweeper.main(args=arguments, prog_name="python -m sweeper", standalone_mode=False, obj=found)
        return code if isinstance(code, int) else 0
    except InputError as error:
        click.echo(str(error), err=True)
        return 2
    except click.ClickException as error:
        click.echo(usage_words(error), err=True)
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("Stopped. What is committed stays: run the same command to go on.", err=True)
        return 130
    except (OSError, sqlite3.Error, DamagedBlockError, ConflictError) as error:
        click.echo(failure_words(found.get("home"), error), err=True)
        return 3


@click.group()
def sweeper() -> None:
    """Sweep disentangling models; answer with a Pareto front of reconstruction against disentanglement."""


_FILE = Place(dir_okay=False)
_NAME = click.argument("name", metavar="NAME")
_MANY = click.argument("names", nargs=-1, required=True, metavar="NAME...")


@sweeper.command("list")
@common_options("as_json")
def list_sweeps(as_json: bool) -> None:
    """Show the questions that can be asked."""
    found = {name: plugins.load(NAMES, name, "sweep").SWEEP for name in plugins.names(NAMES)}
    if as_json:
        click.echo(json.dumps({name: sweep.question for name, sweep in found.items()}))
        return
    from rich.console import Console

    from sweeper import display

    rows = [(name, each.model, ", ".join(each.scales), each.question) for name, each in found.items()]
    Console().print(display.table("Sweeps", ("name", "model", "scales", "question"), rows))


@sweeper.command("plan")
@_MANY
@common_options(
    "scale", "seeds", "set", "label", "home", "storage", "address", "gpus", "cluster_gpus", "as_json", "price"
)
def show_plan(names: tuple[str, ...], price: float | None, as_json: bool, **options: Any) -> None:
    """Show runs, packs, memory, time and cost before anything starts."""
    questions, home, machine = find_questions(names, options), find_home(options), find_machine(options)
    from sweeper.estimate import forecast, plan_table
    from sweeper.machine import cluster, local_slots, measure_on_cluster
    from sweeper.plan import plan, with_known_seeds
    from sweeper.probing import Probe

    records = open_records(home) if home.ledger.exists() else None
    with Probe() as probe:
        planned = plan([with_known_seeds(each, records) for each in questions], probe)
        if machine.address is None:
            _, expected = forecast(planned, records, machine, local_slots(machine), probe.measure)
        else:
            with cluster(machine) as num_slots:
                _, expected = forecast(planned, records, machine, num_slots, measure_on_cluster)
    if expected is None:
        raise InputError(
            f"--address {machine.address}: no node is free to measure a pack on.\n"
            "Wait until one is, or ask for fewer --gpus-per-pack."
        )
    cost = price * expected.duration_s / 3600 if price is not None else None
    if as_json:
        click.echo(json.dumps(asdict(expected) | {"cost": cost}))
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(plan_table(planned, records))
    console.print(expected.sentence() + (f" Cost: {cost:.2f}." if cost is not None else ""), soft_wrap=True)


@sweeper.command()
@_MANY
@common_options(
    "scale", "seeds", "set", "label", "home", "storage", "uri", "address", "gpus", "cluster_gpus", "as_json"
)
@click.option("--yes", is_flag=True, help="begin however long it takes")
def run(names: tuple[str, ...], yes: bool, uri: str | None, as_json: bool, **options: Any) -> int:
    """Train what is missing, write the answer, deliver it to MLflow. Running again goes on."""
    questions, machine = find_questions(names, options), find_machine(options)
    home = find_home(options, is_written=True, has_store=True)
    from sweeper import display
    from sweeper.execution import Execution

    settle_storage(home)
    # A scheduler that takes a machine back asks by SIGTERM: stop as by Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outcome = Execution(questions, home, machine, uri, yes, display.notes()).run()
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        click.echo(json.dumps(asdict(outcome)))
    else:
        from sweeper.execution import closing_words

        for line in closing_words(outcome, questions, home):
            click.echo(line)
    return outcome.exit_code


@sweeper.command()
@_NAME
@common_options("scale", "label", "home", "as_json")
def status(name: str, as_json: bool, **options: Any) -> None:
    """Show how far a sweep has come; works while a driver holds the home."""
    records = open_records(home := find_home(options))
    (sweep,) = known_sweeps(records, [name], options)
    counts = records.counts(sweep)
    if not is_held(home.path):  # whoever trained these is gone
        counts["planned"] += counts.pop("running", 0)
    statuses = ("planned", "running", "done", "failed", "diverged")
    if as_json:
        told = {"sweep": name, "scale": sweep.scale, "label": sweep.label, "home": str(home.path)}
        click.echo(json.dumps(told | {"counts": {status: counts[status] for status in statuses}}))
        return
    from rich.console import Console

    from sweeper import display
    from sweeper.execution import troubles

    rows = [[counts[status] for status in statuses]]
    console = Console(highlight=False)
    console.print(display.table(str(sweep), statuses, rows))
    for line in troubles(records, sweep):
        console.print(line, soft_wrap=True, markup=False)


@sweeper.command("pareto")
@_MANY
@common_options("scale", "label", "home", "storage", "as_json")
@click.option("--csv", type=_FILE, help="write the front's table here, and beside it what was left out")
@click.option("--plot", type=_FILE, help="write the picture here, .png or .svg")
@click.option("--objectives", help="metrics of the axes, comma-separated (default: the sweep's own)")
@click.option("--allow-diverged", is_flag=True, help="keep draws that have a diverged seed on the front")
def show_front(
    names: tuple[str, ...], csv: Path | None, plot: Path | None, objectives: str | None, **options: Any
) -> None:
    """Show the Pareto front with its intervals over seeds."""
    home = find_home(options)
    check_output("--csv", csv, (".csv",), home)
    check_output("--plot", plot, (".png", ".svg"), home)
    records = open_records(home)
    sweeps = known_sweeps(records, names, options)
    from sweeper import report

    axes = tuple(objectives.split(",")) if objectives is not None else ()
    if len(set(axes)) < len(axes):
        raise InputError(f"--objectives {objectives}: an axis is there twice.\nName each once.")
    for axis in axes:
        plugins.check("trainables.metrics", axis, "metric")
    answer = report.answer(records, sweeps, allow_diverged=options["allow_diverged"], objectives=axes)
    # The plot is made first: it refuses what it cannot show, and then nothing is written.
    written = [(report.write_plot(answer, plot), "plot")] if plot else []
    if csv:
        written[:0] = [
            (report.write_csv(answer, csv), "front"),
            (report.write_left_out(answer, csv), "left out"),
        ]
    register(home, written)
    if options["as_json"]:
        click.echo(
            json.dumps({"summary": report.summary(answer), "files": [str(path) for path, _ in written]})
        )
        return
    from rich.console import Console

    from sweeper import display

    console = Console(highlight=False)
    console.print(display.front(answer))
    for line in (*report.summary(answer)[1:], *(f"Wrote {path}" for path, _ in written)):
        console.print(line, soft_wrap=True, markup=False)


@sweeper.command()
@_NAME
@common_options("scale", "label", "home", "storage")
@click.option("--runs", type=_FILE, required=True, help="write a row per run and objective here")
def export(name: str, runs: Path, **options: Any) -> None:
    """Write the runs that the front is computed from."""
    home = find_home(options)
    check_output("--runs", runs, (".csv",), home)
    records = open_records(home)
    from sweeper import report

    path = report.write_runs(report.answer(records, known_sweeps(records, [name], options)), runs)
    register(home, [(path, "runs")])
    click.echo(f"Wrote {path}")


@sweeper.command()
@_NAME
@common_options("scale", "label", "home", "storage")
@click.option("--metric", "metrics", multiple=True, required=True, help="for example mig; may be repeated")
def evaluate(name: str, metrics: tuple[str, ...], **options: Any) -> None:
    """Give finished runs metrics that they lack, from what they kept; trains nothing."""
    for metric in metrics:
        plugins.check("trainables.metrics", metric, "metric")
    home = find_home(options, is_written=True)
    (sweep,) = known_sweeps(open_records(home), [name], options)
    from sweeper import display, rescoring
    from sweeper.ledger import Ledger

    with lock_home(home.path), Ledger(home.ledger, home.storage) as ledger:
        said = rescoring.evaluate(ledger, sweep, tuple(dict.fromkeys(metrics)), display.notes())
    click.echo(f"{said} MLflow takes them with the next run or sync.")


@sweeper.command()
@_MANY
@common_options("scale", "label", "home", "storage", "uri")
def sync(names: tuple[str, ...], uri: str | None, **options: Any) -> int:
    """Deliver to MLflow what it lacks, from the ledger."""
    home = find_home(options, is_written=True, has_store=True)
    sweeps = known_sweeps(open_records(home), names, options)
    from sweeper import projection

    pending = projection.project_once(home, uri, sweeps, is_anew=True)
    if pending:
        left = f"MLflow still lacks {pending} runs."
        click.echo(f"{left} Nothing is lost: sync again once it answers.", err=True)
        return 3
    click.echo(f"{projection.store_uri(home, uri)} has everything that is committed.")
    return 0


@sweeper.command()
@_NAME
@common_options("scale", "label", "home", "storage", "uri")
def verify(name: str, uri: str | None, **options: Any) -> int:
    """Check blocks, ledger, exports and MLflow against each other; 0 only if all agree."""
    home = find_home(options, has_store=True)
    check_ledger(home)
    from sweeper import projection
    from sweeper import verify as checking

    if damage := home.damage():
        problems = [damage_words(home, damage)]
    else:
        sweeps = known_sweeps(open_records(home), [name], options)
        problems = checking.check(home.ledger, home.storage)
        problems += projection.verify_projection(home, uri, sweeps)
    for problem in problems:
        click.echo(problem)
    click.echo(
        f"Problems found: {len(problems)}." if problems else "Blocks, ledger, exports and MLflow agree."
    )
    return 1 if problems else 0


@sweeper.command()
@common_options("home", "storage")
def rebuild(**options: Any) -> None:
    """Make a lost ledger again from the storage."""
    home = find_home(options, is_written=True)
    check_stored(home)
    from sweeper import verify as checking

    with lock_home(home.path):
        found = checking.rebuild(home.ledger, home.storage)
        home.remember_storage()
    for problem in found.problems:
        click.echo(problem)
    click.echo(f"{home.ledger} holds {found.num_taken} blocks again.")


@sweeper.command()
@common_options("home", "uri")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True)
def ui(port: int, uri: str | None, **options: Any) -> int:
    """Show MLflow's pages on http://127.0.0.1:5000, to this machine alone."""
    home = find_home(options, is_written=True, has_store=True)
    from sweeper import projection

    store = projection.store_uri(home, uri)
    file = projection.sqlite_file(store)
    if not file:
        click.echo(f"{store} is a server: open it in a browser.")
        return 0
    if not file.exists():
        raise InputError(
            f"{file}: nothing to show yet.\nTrain first: python -m sweeper run NAME --home {home.path}"
        )
    click.echo(f"MLflow on http://127.0.0.1:{port} (Ctrl-C ends it)")
    serve = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1"]
    return subprocess.run([*serve, "--port", str(port)], check=False).returncode
