"""Commands that analyze committed runs: `pareto`, `export`, `evaluate`, `figure`, `calibrate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sweeper.cli.options import (
    MANY,
    NAME,
    HomeOptions,
    SweepOptions,
    with_home,
    with_home_alone,
    with_json,
    with_reading,
    with_sweep,
)
from sweeper.cli.resolve import (
    check_output,
    check_stored,
    find_home,
    known_sweeps,
    listed,
    open_records,
    register,
    repeated,
    say,
)
from sweeper.cli.values import FILE, Number
from sweeper.home import MAX_STEM, driving, lock_home
from trainables import contracts, plugin_store, plugins, sources
from trainables.errors import InputError, UnknownNameError
from trainables.reading import Reading

if TYPE_CHECKING:
    from sweeper.analysis.front import Answer


@click.command("pareto")
@MANY
@with_sweep
@with_home
@with_json
@click.option("--csv", type=FILE, help="write the front to this .csv, and what was left out beside it")
@click.option("--plot", type=FILE, help="write the picture to this .png or .svg")
@click.option("--objectives", help="metrics of the axes, comma-separated (default: those of the sweep)")
@click.option("--allow-diverged", is_flag=True, help="keep draws with a diverged seed on the front")
def show_front(
    names: tuple[str, ...],
    chosen: SweepOptions,
    place: HomeOptions,
    csv: Path | None,
    plot: Path | None,
    objectives: str | None,
    allow_diverged: bool,
    as_json: bool,
) -> None:
    """Show the Pareto front with intervals over seeds."""
    home = find_home(place)
    check_output("--csv", csv, (".csv",), home)
    check_output("--plot", plot, (".png", ".svg"), home)
    records = open_records(home, names, chosen)
    sweeps = known_sweeps(records, names, chosen, home)
    from sweeper.analysis import front

    axes = listed("--objectives", objectives)
    answer = front.answer(records, sweeps, allow_diverged=allow_diverged, objectives=axes, home=home.path)
    # The plot comes first: if it cannot show the answer it raises an error, and nothing is written.
    written = [(_plotted(answer, plot), "plot")] if plot else []
    if csv:
        written[:0] = [
            (front.write_csv(answer, csv), "front"),
            (front.write_left_out(answer, csv), "left out"),
        ]
    register(home, written, sweeps)
    if as_json:
        click.echo(
            json.dumps({"summary": front.summary(answer), "files": [str(path) for path, _ in written]})
        )
        return
    from rich.console import Console

    from sweeper.cli.tables import show_answer

    show_answer(answer, Console(highlight=False))
    for path, _ in written:
        click.echo(f"Wrote {path}")


def _plotted(answer: Answer, path: Path) -> Path:
    from sweeper.figures.front_data import write_plot  # imports matplotlib, which takes a second

    return write_plot(answer, path)


@click.command()
@NAME
@with_sweep
@with_home
@click.option(
    "--runs",
    type=FILE,
    required=True,
    help="file to write, one row per run and objective, for example runs.csv",
)
def export(name: str, chosen: SweepOptions, place: HomeOptions, runs: Path) -> None:
    """Write the runs that the front is computed from."""
    home = find_home(place)
    check_output("--runs", runs, (".csv",), home)
    records = open_records(home, [name], chosen)
    from sweeper.analysis import front

    sweeps = known_sweeps(records, [name], chosen, home)
    path = front.write_runs(front.answer(records, sweeps), runs)
    register(home, [(path, "runs")], sweeps)
    click.echo(f"Wrote {path}")


@click.command()
@NAME
@with_sweep
@with_home
@click.option(
    "--metric", "metrics", multiple=True, required=True, help="for example mig or mig,sap; may be repeated"
)
def evaluate(name: str, chosen: SweepOptions, place: HomeOptions, metrics: tuple[str, ...]) -> None:
    """Compute metrics that finished runs lack; trains nothing."""
    home = find_home(place, is_written=True)
    metrics = repeated(metrics)
    check_stored(home, must_exist=False)
    (sweep,) = known_sweeps(open_records(home, [name], chosen), [name], chosen, home)
    from sweeper import display
    from sweeper.scheduling import scoring

    with driving(home, say) as ledger:
        plugin_store.keep(home.storage, (plugins.reference(contracts.METRICS, name) for name in metrics))
        said = scoring.evaluate(ledger, sweep, metrics, display.notes())
    click.echo(f"{said} MLflow takes them with the next run or sync.")


@click.command()
@click.argument("kind", metavar="KIND")
@MANY
@with_sweep
@with_home
@click.option("--out", type=FILE, help="write .png and .svg here (default HOME/figures/...)")
@click.option("--metrics", help="metrics to show, comma-separated (default: those of the paper)")
def figure(
    kind: str,
    names: tuple[str, ...],
    chosen: SweepOptions,
    place: HomeOptions,
    out: Path | None,
    metrics: str | None,
) -> None:
    """Plot a figure of the paper, as PNG and SVG.

    KIND is 3 or 6 (traversals of the best runs), 4 (curves over steps), 5 (reconstruction against the metric), or metrics
    (metric against metric).
    """
    from sweeper.figures import paper

    if kind not in paper.KINDS:
        order = "The kind comes first, for example: figure 4 factorvae_gamma"
        raise UnknownNameError("kind of figure", kind, paper.KINDS, order)
    home = find_home(place)
    shown = listed("--metrics", metrics)
    records = open_records(home, names, chosen)
    sweeps = known_sweeps(records, names, chosen, home)
    stem = out or home.path / "figures" / f"figure_{kind}_{'+'.join(map(str, sweeps))}"[:MAX_STEM]
    if out is None:
        stem.parent.mkdir(exist_ok=True)
    elif out.suffix in (".png", ".svg"):
        stem = out.with_suffix("")
    elif out.suffix in (".pdf", ".eps", ".jpg", ".jpeg"):
        raise InputError(f"--out {out}: unsupported extension '{out.suffix}'; expected .png or .svg.")
    check_output("--out", stem.with_name(f"{stem.name}.png"), (".png",), home)
    for path in paper.draw(kind, records, home.storage, sweeps, stem, shown, home.path):
        click.echo(f"Wrote {path}")


@click.command()
@click.argument("data", metavar="DATASET")
@with_reading
@with_home_alone
@click.option(
    "--metric", "metrics", multiple=True, help="for example mig or mig,sap; may be repeated (default: all)"
)
@click.option(
    "--num-seeds", type=Number(2, 100, 5), default=5, show_default=True, help="seeds of each random code"
)
def calibrate(
    data: str, reading: Reading, place: HomeOptions, metrics: tuple[str, ...], num_seeds: int
) -> None:
    """Measure what known codes score on a data set: perfect, untrained, random and others."""
    home = find_home(place, is_written=True)
    data = sources.named(data, reading)
    metrics = repeated(metrics)
    from rich.console import Console

    from sweeper import display
    from sweeper.analysis import calibration
    from sweeper.cli.tables import calibration_table

    with lock_home(home.path):
        found = calibration.calibrate(home, data, metrics, num_seeds, display.notes())
    Console(highlight=False).print(calibration_table(found))
    click.echo(found.sentence())
