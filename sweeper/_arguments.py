"""Words that several commands share: their options, and what the words mean.

Each function answers a wrong word with an `InputError` that says what is valid. What imports slowly is imported late.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from trainables import config, plugins
from trainables.errors import InputError

NAMES = "search_spaces"


def common_options(*names: str) -> Callable[[Any], Any]:
    """Give a command the common options, and those named."""
    known = {
        "scale": click.option("--scale", default="paper", show_default=True, help="paper, laptop or smoke"),
        "label": click.option(
            "--as", "label", default="", metavar="LABEL", help="name of a question changed by --set"
        ),
        "home": click.option(
            "--home",
            type=click.Path(path_type=Path, file_okay=False),
            default=lambda: os.environ.get("SWEEPER_HOME", "sweeps"),
            help="everything a sweep keeps, on a local disk (default ./sweeps or SWEEPER_HOME)",
        ),
        "storage": click.option(
            "--storage",
            type=click.Path(path_type=Path, file_okay=False),
            help="blocks, shared by all machines",
        ),
        "as_json": click.option("--json", "as_json", is_flag=True, help="print one JSON object"),
        "uri": click.option("--tracking-uri", "uri", help="MLflow store (default: SQLite in the home)"),
        "seeds": click.option("--seeds", help="for example 0-9; adds to what is there, never removes"),
        "set": click.option(
            "--set", "assignments", multiple=True, metavar="FIELD=VALUE", help="change a field; needs --as"
        ),
        "address": click.option("--address", help="a running Ray cluster (default: this machine)"),
        "gpus": click.option(
            "--gpus-per-pack", "gpus", type=float, default=0.0, help="1/k of a GPU, for example 0.25"
        ),
    }

    def decorate(command: Any) -> Any:
        for name in reversed(names):
            command = known[name](command)
        return command

    return decorate


def find_questions(names: Sequence[str], options: dict[str, Any]) -> list[Any]:
    check_names(names)
    from sweeper.plan import find_question

    seeds = config.parse_seeds(options["seeds"]) if options["seeds"] is not None else None
    fields = config.parse_fields(options["assignments"])
    return [
        find_question(name, options["scale"], seeds, fields, options["label"])
        for name in dict.fromkeys(names)
    ]


def check_names(names: Sequence[str]) -> None:
    for name in names:
        plugins.check(NAMES, name, "sweep")


def find_home(options: dict[str, Any]) -> Any:
    from sweeper.home import Home

    path, storage = options["home"], options.get("storage")
    for option, folder in (("--home", path), ("--storage", storage)):
        if folder:
            check_folder(option, folder, folder)
    return Home.at(path, storage)


def check_folder(option: str, path: Path, folder: Path) -> None:
    """Accept a path whose folder can be written in, or can be made."""
    while not os.path.exists(folder):  # noqa: PTH110 (a Path raises where it may not look)
        folder = folder.absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise InputError(f"{option} {path}: {folder} is no folder that you may write in.\nName another.")


def find_machine(options: dict[str, Any]) -> Any:
    from sweeper.machine import Machine, check_address, check_share

    check_share(options["gpus"])
    check_address(options.get("address"))
    return Machine(options.get("address"), options["gpus"])


def open_records(options: dict[str, Any]) -> Any:
    from sweeper.records import Records

    home = find_home(options)
    if not home.ledger.exists():
        raise InputError(
            f"--home {home.path}: nothing to show yet, there is no ledger.\n"
            "Train first: python -m sweeper run NAME, or name another home."
        )
    return Records.open(home.ledger)


def known_sweep(name: str, options: dict[str, Any]) -> Any:
    """The sweep of a name that a ledger knows."""
    from sweeper.rows import SweepId

    sweep = SweepId(name, options["scale"], options["label"])
    known = open_records(options).sweeps()
    if sweep in known:
        return sweep
    if name not in {each.name for each in known}:
        check_names([name])
    scales = sorted({each.scale for each in known if each.name == name})
    labels = sorted({each.label for each in known if (each.name, each.scale) == (name, sweep.scale)} - {""})
    there = [f"--scale {scale}" for scale in scales if scale != sweep.scale] + [
        f"--as {label}" for label in labels
    ]
    remedy = f"This home has it with {' and '.join(there)}." if there else "Run it first."
    raise InputError(f"Sweep {sweep}: nothing to show yet in {options['home']}.\n{remedy}")


def known_sweeps(names: Sequence[str], options: dict[str, Any]) -> list[Any]:
    return [known_sweep(name, options) for name in dict.fromkeys(names)]


def register(home: Any, files: Sequence[tuple[Path, str]]) -> None:
    """Note written files in the ledger, so that `verify` knows them; a driver that holds the home keeps us from it."""
    from sweeper.home import lock_home
    from sweeper.ledger import Ledger

    if not files:
        return
    try:
        with lock_home(home.path), Ledger(home.ledger, home.storage) as ledger:
            for path, kind in files:
                ledger.record_export(path, kind)
    except InputError as error:
        click.echo(f"Not registered for verify: {error}", err=True)
