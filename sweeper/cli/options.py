"""Options that commands share, in groups; each group is one typed argument of a command."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import click

from sweeper.cli.values import FOLDER, Gpus, Number, PluginName, Share, source
from trainables.config import STATE_EVERY_S
from trainables.contracts import SWEEPS
from trainables.errors import InputError
from trainables.reading import GRID, LINKS, OPTIONS, Reading, sizes

MAX_LABEL = 64
MAX_PRICE = 1e9
MAX_STATE_EVERY_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class SweepOptions:
    """Which of the sweeps with a name: `--scale`, empty if it was not typed, and `--as`."""

    scale: str
    label: str


@dataclass(frozen=True)
class VariantOptions:
    """Changes to a sweep: `--seeds`, `--set` (as FIELD=VALUE) and `--data`."""

    seeds: str | None
    assignments: tuple[str, ...]
    data: str | None


@dataclass(frozen=True)
class HomeOptions:
    """Where results are kept: `--home` and `--storage`."""

    home: Path
    storage: Path | None = None


@dataclass(frozen=True)
class MachineOptions:
    """Where packs are trained; a GPU share of None is chosen by measuring."""

    address: str | None
    gpus: float | None
    device: Literal["auto", "cpu", "gpu"]
    cluster_gpus: tuple[str, int]
    ray: bool | None
    state_every: float = STATE_EVERY_S


NAME = click.argument("name", type=PluginName(SWEEPS), metavar="NAME")
MANY = click.argument("names", type=PluginName(SWEEPS), nargs=-1, required=True, metavar="NAME...")


def _check_scale(_: click.Context, __: click.Parameter, scale: str | None) -> str:
    if scale == "":
        raise InputError("--scale '': the scale is empty.\nUse paper, laptop or smoke.")
    return scale or ""


def check_label(_: click.Context, parameter: click.Parameter, label: str | None) -> str:
    """Return the label that was typed, empty if none was.

    Raises:
        InputError: It cannot be a label.
    """
    option = parameter.opts[0]
    if label == "":
        raise InputError(
            f"{option} '': the label is empty.\nGive the variant a label, for example {option} wide."
        )
    if len(label or "") > MAX_LABEL:
        raise InputError(f"{option} {label}: {len(label or '')} characters.\nUse at most {MAX_LABEL}.")
    from sweeper.ledger import rows

    rows.check_label(label or "", option)
    return label or ""


def _read_sizes(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    return sizes(text) if text else ()


def _check_uri(_: click.Context, parameter: click.Parameter, uri: str | None) -> str | None:
    if uri is not None:
        from sweeper.tracking.process import check_uri

        # An address may hold a password, so that it is not repeated before it is checked.
        check_uri(uri, option=source(parameter))
    return uri


_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "scale": click.option(
        "--scale",
        callback=_check_scale,
        help="paper, laptop or smoke (default: what the home has; to start a sweep, paper)",
    ),
    "label": click.option(
        "--as",
        "label",
        metavar="LABEL",
        callback=check_label,
        help="name of a variant of the sweep, changed by --set or --data",
    ),
    "seeds": click.option(
        "--seeds",
        help="seeds of every draw, for example 0-9 (default: the scale's); seeds that the home has are kept",
    ),
    "assignments": click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="FIELD=VALUE",
        help="change a field of the sweep; several values, separated by commas, are a grid; needs --as",
    ),
    "data": click.option(
        "--data",
        help="another data set, or your own images: .npz, .npy, .h5, a folder, .zip or .tar; needs --as",
    ),
    **{
        name: click.option(f"--{name}", default="", metavar=metavar, help=meaning)
        for name, (metavar, meaning) in OPTIONS.items()
    },
    "factor_sizes": click.option(
        "--factor-sizes", default="", metavar="SIZES", callback=_read_sizes, help=GRID
    ),
    "follow_links": click.option("--follow-links", "follow_links", is_flag=True, help=LINKS),
    "home": click.option(
        "--home",
        type=FOLDER,
        default="sweeps",
        envvar="SWEEPER_HOME",
        show_envvar=True,
        help="folder for results, on a local disk (default ./sweeps)",
    ),
    "storage": click.option(
        "--storage",
        type=FOLDER,
        envvar="SWEEPER_STORAGE",
        show_envvar=True,
        help="folder for blocks, shared by all machines (default: inside the home)",
    ),
    "address": click.option(
        "--address",
        envvar="SWEEPER_ADDRESS",
        show_envvar=True,
        help="HOST:PORT of a running Ray cluster, or local for this machine (default: RAY_ADDRESS, else the cluster that `ray start`"
        " began here, else this machine)",
    ),
    "gpus": click.option(
        "--gpus-per-pack",
        "gpus",
        type=Share(),
        envvar="SWEEPER_GPUS_PER_PACK",
        show_envvar=True,
        help="1/k of a GPU, for example 0.25; 0 for the CPU (default: auto, the fastest when measured)",
    ),
    "device": click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "gpu"]),
        default="auto",
        show_default=True,
        envvar="SWEEPER_DEVICE",
        show_envvar=True,
        help="where to train; auto uses GPUs if there are any, and resumes a sweep where it began",
    ),
    "cluster_gpus": click.option(
        "--cluster-gpus",
        type=Gpus(),
        default=("", 0),
        metavar="[KIND:]NUMBER",
        envvar="SWEEPER_CLUSTER_GPUS",
        show_envvar=True,
        help="GPUs that an autoscaling cluster may grow to, for example 4 or L4:4 (default: those it has)",
    ),
    "ray": click.option(
        "--ray/--no-ray",
        "ray",
        default=None,
        help="train in workers of Ray, or in this process, one pack after the other, for debuggers and where Ray cannot start"
        " (default: with Ray, unless training takes only seconds)",
    ),
    "state_every": click.option(
        "--state-every",
        type=Number(0.0, MAX_STATE_EVERY_S, 120, "seconds"),
        metavar="SECONDS",
        default=STATE_EVERY_S,
        show_default=True,
        envvar="SWEEPER_STATE_EVERY",
        show_envvar=True,
        help="training time between two states to resume from, if writing one takes less than 2 % of it",
    ),
}


def _group(kind: type[Any], name: str, omit: Sequence[str] = ()) -> Callable[[Any], Any]:
    """Return a decorator that gives a command the options of a dataclass and passes them as one argument.

    Args:
        kind: The dataclass; each field is an option.
        name: Name of the argument.
        omit: Fields that the command does not offer; they must have defaults.
    """
    names = [field.name for field in fields(kind) if field.name not in omit]

    def decorate(command: Callable[..., Any]) -> Any:
        @functools.wraps(command)
        def collected(**given: Any) -> Any:
            own = kind(**{each: given.pop(each) for each in names})
            return command(**{name: own}, **given)

        decorated: Any = collected
        for each in reversed(names):
            decorated = _OPTIONS[each](decorated)
        return decorated

    return decorate


with_sweep = _group(SweepOptions, "chosen")
with_variant = _group(VariantOptions, "variant")
with_reading = _group(Reading, "reading")
with_home = _group(HomeOptions, "place")
with_home_alone = _group(HomeOptions, "place", omit=["storage"])
with_machine = _group(MachineOptions, "where")
with_machine_to_plan = _group(MachineOptions, "where", omit=["state_every"])

with_json = click.option("--json", "as_json", is_flag=True, help="print one JSON object")
with_uri = click.option(
    "--tracking-uri",
    "uri",
    callback=_check_uri,
    envvar=["SWEEPER_TRACKING_URI", "MLFLOW_TRACKING_URI"],
    show_envvar=True,
    help="MLflow store (default: SQLite in the home)",
)
with_price = click.option(
    "--price-per-hour",
    "price",
    type=Number(0.0, MAX_PRICE, 2.5),
    help="price of this machine per hour, in your currency",
)
