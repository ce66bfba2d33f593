"""Words that several commands share: their options, and what the words mean.

Each function answers a wrong word with an `InputError` that says what is valid. What imports slowly is imported late.
"""

import math
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from sweeper import display
from sweeper.home import Home, check_folder, check_length, check_letters, check_visible, lock_home
from trainables import config, plugins
from trainables.errors import InputError

NAMES = "search_spaces"

MAX_LABEL = 64
MAX_STEPS = 10**9
MAX_PRICE = 10**9
MAX_STATE_EVERY_S = 7 * 24 * 3600.0
STATE_EVERY_S = 120.0  # as in trainables.committing, which imports torch


class Share(click.ParamType):
    """A share of a GPU, or `auto`."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Read a share; None stands for `auto`."""
        if value is None or str(value).lower() == "auto":
            return None
        try:
            return float(value)
        except ValueError:
            self.fail(f"'{value}' is no share. Valid: auto, 0 (CPU), 1, 0.5, 0.333, 0.25 ...", param, ctx)


class Place(click.Path):
    """A path, which is not empty: that would be the folder in which one happens to be."""

    def __init__(self, **what: Any) -> None:
        super().__init__(path_type=Path, **what)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read a path."""
        if not str(value):
            self.fail("'' names no place.", param, ctx)
        return super().convert(value, param, ctx)


FILE = Place(dir_okay=False)
NAME = click.argument("name", metavar="NAME")
MANY = click.argument("names", nargs=-1, required=True, metavar="NAME...")


def common_options(*names: str) -> Callable[[Any], Any]:
    """Give a command the common options, and those named."""
    known = {
        "scale": click.option("--scale", default="paper", show_default=True, help="paper, laptop or smoke"),
        "label": click.option(
            "--as",
            "label",
            metavar="LABEL",
            callback=_check_label,
            help="name of a question changed by --set or --data",
        ),
        "home": click.option(
            "--home",
            type=Place(file_okay=False),
            default="sweeps",
            envvar="SWEEPER_HOME",
            show_envvar=True,
            help="everything a sweep keeps, on a local disk (default ./sweeps)",
        ),
        "storage": click.option(
            "--storage",
            type=Place(file_okay=False),
            envvar="SWEEPER_STORAGE",
            show_envvar=True,
            help="blocks, shared by all machines",
        ),
        "as_json": click.option("--json", "as_json", is_flag=True, help="print one JSON object"),
        "uri": click.option(
            "--tracking-uri",
            "uri",
            callback=_check_uri,
            envvar="SWEEPER_TRACKING_URI",
            show_envvar=True,
            help="MLflow store (default: SQLite in the home)",
        ),
        "seeds": click.option("--seeds", help="for example 0-9; adds to what is there, never removes"),
        "set": click.option(
            "--set", "assignments", multiple=True, metavar="FIELD=VALUE", help="change a field; needs --as"
        ),
        "data": click.option(
            "--data",
            help="another data set, or images of your own: .npz, .h5, a folder, .zip or .tar; needs --as",
        ),
        "address": click.option(
            "--address",
            envvar="SWEEPER_ADDRESS",
            show_envvar=True,
            help="a running Ray cluster (default: this machine)",
        ),
        "cluster_gpus": click.option(
            "--cluster-gpus",
            type=click.IntRange(0, 10_000),
            default=0,
            envvar="SWEEPER_CLUSTER_GPUS",
            show_envvar=True,
            help="GPUs that an autoscaled cluster may grow to (default: those it has)",
        ),
        "gpus": click.option(
            "--gpus-per-pack",
            "gpus",
            type=Share(),
            envvar="SWEEPER_GPUS_PER_PACK",
            show_envvar=True,
            help="1/k of a GPU, for example 0.25; 0 for CPU packs (default: auto, what is fastest when measured)",
        ),
        "device": click.option(
            "--device",
            type=click.Choice(["auto", "cpu", "gpu"]),
            default="auto",
            show_default=True,
            envvar="SWEEPER_DEVICE",
            show_envvar=True,
            help="what packs train on: auto is a GPU where there is one, but what a sweep was begun on",
        ),
        "state_every": click.option(
            "--state-every",
            type=click.FloatRange(min=0, max=MAX_STATE_EVERY_S),
            callback=_check_finite,
            metavar="SECONDS",
            default=STATE_EVERY_S,
            show_default=True,
            envvar="SWEEPER_STATE_EVERY",
            show_envvar=True,
            help="training time between two states to resume from, if writing one takes less than 2 % of it",
        ),
        "no_ray": click.option(
            "--no-ray",
            "no_ray",
            is_flag=True,
            help="train in this process, one pack after the other: for debuggers, and where Ray cannot start",
        ),
        "price": click.option(
            "--price-per-hour",
            "price",
            type=float,
            callback=_check_price,
            help="of this machine, in your currency",
        ),
    }

    def decorate(command: Any) -> Any:
        for name in reversed(names):
            command = known[name](command)
        return command

    return decorate


def _check_label(_: click.Context, __: click.Parameter, label: str | None) -> str:
    if label == "":
        raise InputError("--as '': a label has letters or digits.\nLeave --as out for the sweep as it is.")
    if len(label or "") > MAX_LABEL:
        raise InputError(f"--as {label}: that is {len(label or '')} letters.\nUse at most {MAX_LABEL}.")
    return label or ""


def _check_uri(_: click.Context, __: click.Parameter, uri: str | None) -> str | None:
    if uri is not None:
        from sweeper.tracking.process import check_uri

        check_uri(uri)
    return uri


def _check_finite(_: click.Context, parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise InputError(f"{parameter.opts[0]} {value:g}: it is a number of seconds, for example 120.")
    return value


def _check_price(_: click.Context, __: click.Parameter, price: float | None) -> float | None:
    if price is not None and not 0 <= price <= MAX_PRICE:
        raise InputError(f"--price-per-hour {price:g}: it is a number from 0 to {MAX_PRICE:,}.")
    return price


def find_questions(names: Sequence[str], options: dict[str, Any]) -> list[Any]:
    """The sweeps at the scale, with the seeds and fields that were typed."""
    check_names(names)
    from sweeper.scheduling.plan import PROTOCOL, find_question

    seeds = config.parse_seeds(options["seeds"]) if options["seeds"] is not None else None
    fields = config.parse_fields(options["assignments"])
    for name in PROTOCOL:
        value = fields.get(name, "")
        if value.isdecimal() and (len(value) > len(str(MAX_STEPS)) or int(value) > MAX_STEPS):
            raise InputError(f"--set {name}={value[:40]}: at most {MAX_STEPS:,}, for example {name}=1000.")
    return [
        find_question(name, options["scale"], seeds, fields, options["label"], options["data"])
        for name in dict.fromkeys(names)
    ]


def check_names(names: Sequence[str]) -> None:
    """Accept names of sweeps.

    Raises:
        UnknownNameError: There is no such sweep.
    """
    for name in names:
        plugins.check(NAMES, name, "sweep")


def find_home(options: dict[str, Any], *, is_written: bool = False, has_store: bool = False) -> Home:
    """The home that is meant, as one that can be read, or written.

    Args:
        options: As typed.
        is_written: Whether the command writes in it.
        has_store: Whether the command opens an MLflow store in it.
    """
    path, storage = options["home"], options.get("storage")
    for option, folder in (("--home", path), ("--storage", storage)):
        if folder:
            check_length(option, folder)
            (check_folder if is_written else check_visible)(option, folder, folder)
    if has_store:
        check_letters(path)
    home = Home.at(path, storage)
    click.get_current_context().obj["home"] = home
    return home


def check_output(option: str, path: Path | None, suffixes: Sequence[str], home: Home) -> None:
    """Accept a file to be written: of this kind, where one may write, and none that a home keeps."""
    if path is None:
        return
    if path.suffix not in suffixes:
        valid = ", ".join(suffixes)
        raise InputError(
            f"{option} {path}: the name does not end as it should.\nValid: {valid}; for example front{suffixes[0]}."
        )
    check_length(option, path)
    check_folder(option, path, path.parent)
    place = Path(os.path.realpath(path.parent))
    for own in (home.storage, home.exports, home.path / "mlartifacts"):
        if place.is_relative_to(os.path.realpath(own)):
            raise InputError(f"{option} {path}: what is in {own} is the home's own.\nName another folder.")


def find_machine(options: dict[str, Any]) -> Any:
    """The machine or cluster that was typed."""
    from sweeper.machines.resources import Machine, check_address, check_device, check_share

    share, device = _share_and_device(options)
    if share is not None:
        check_share(share)
    address, is_without_ray = options.get("address"), options["no_ray"]
    if is_without_ray and address:
        if _is_typed("address"):
            raise InputError(
                f"--no-ray trains in this process, --address {address} on a cluster.\nLeave one of them out."
            )
        address = None
    check_address(address)
    if options["cluster_gpus"] and not address and _is_typed("cluster_gpus"):
        raise InputError(
            "--cluster-gpus is about a cluster.\nName it with --address, or leave --cluster-gpus out."
        )
    machine = Machine(
        address,
        share,
        cluster_gpus=options["cluster_gpus"],
        device=device,
        state_every_s=options.get("state_every", STATE_EVERY_S),
        is_without_ray=is_without_ray,
    )
    check_device(machine)
    return machine


def _share_and_device(options: dict[str, Any]) -> tuple[float | None, Any]:
    """As typed; what comes from a variable gives way to what is typed."""
    share, device = options["gpus"], options["device"]
    if share is not None and device != "auto" and (device == "cpu") != (share == 0):
        if _is_typed("device") and not _is_typed("gpus"):
            return None, device
        if _is_typed("gpus") and not _is_typed("device"):
            return share, "auto"
    return share, device


def _is_typed(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source == click.core.ParameterSource.COMMANDLINE


def check_ledger(home: Home) -> None:
    """Accept a home that has a ledger which may be read."""
    if not home.ledger.exists():
        raise InputError(
            f"--home {home.path}: nothing to show yet, there is no ledger.\n"
            f"Train first: {display.command('run', 'NAME', home=home.path)}\nOr name another home."
        )
    if not os.access(home.ledger, os.R_OK):
        raise InputError(f"--home {home.path}: you may not read its ledger.\nName another home.")


def open_records(home: Home) -> Any:
    """Open the ledger of a home for reading."""
    from sweeper.ledger.reader import Records

    check_ledger(home)
    return Records.open(home.ledger)


def known_sweeps(records: Any, names: Sequence[str], options: dict[str, Any]) -> list[Any]:
    """The sweeps of these names that a ledger knows."""
    return [_known_sweep(records, name, options) for name in dict.fromkeys(names)]


def _known_sweep(records: Any, name: str, options: dict[str, Any]) -> Any:
    from sweeper.ledger.rows import SweepId

    sweep = SweepId(name, options["scale"], options["label"])
    known = records.sweeps()
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


def settle_storage(home: Home) -> None:
    """Join a home and a storage elsewhere before anything else is done, so that the home never forgets it."""
    from sweeper.ledger.writer import Ledger

    if not home.is_settled:
        with lock_home(home.path), Ledger(home.ledger, home.storage):
            home.remember_storage()


def register(home: Home, files: Sequence[tuple[Path, str]]) -> None:
    """Note written files in the ledger, so that `verify` knows them; a driver that holds the home keeps us from it."""
    from sweeper.ledger.writer import Ledger

    if not files:
        return
    try:
        check_folder("--home", home.path, home.path)
        with lock_home(home.path), Ledger(home.ledger, home.storage) as ledger:
            home.remember_storage()
            for path, kind in files:
                ledger.record_export(path, kind)
    except InputError as error:
        click.echo(f"Not registered for verify: {error}", err=True)


def check_stored(home: Home) -> None:
    """Accept a home whose storage is there."""
    if not home.storage.exists():
        raise InputError(
            f"--home {home.path}: there is no {home.storage}, hence nothing to rebuild from.\n"
            "Name the right home, or the folder of its blocks with --storage."
        )


def usage_words(error: click.ClickException) -> str:
    """What to say of words that do not parse."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "python -m sweeper"
    return f"{error.format_message()}\nSee {command} --help."


def damage_words(home: Home, found: object) -> str:
    """What to say of a ledger whose file is damaged."""
    again = display.command("rebuild", home=home.path)
    return f"{home.ledger} is damaged: {found}\nMove it away, then make it again from the storage: {again}"


def failure_words(home: Home | None, error: Exception) -> str:
    """What to say when the machine failed while working in a home, if it came so far."""
    if (
        home and type(error) is sqlite3.DatabaseError
    ):  # not one of its subclasses: the file is not what it should be
        return damage_words(home, error)
    what = f"{home.ledger}: {error}" if home and isinstance(error, sqlite3.Error) else error
    return f"The machine failed: {what}\nMend it and run the same command to go on."
