"""Turn typed options into sweeps, homes and machines, each checked before anything slow begins.

Every function raises an `InputError` for invalid input, whose message states what is valid. Slow modules are imported late.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

import search_spaces
from sweeper import display
from sweeper.cli.options import HomeOptions, MachineOptions, SweepOptions, VariantOptions
from sweeper.home import (
    STORAGE_PATH,
    Home,
    check_folder,
    check_length,
    check_letters,
    check_visible,
    driving,
    lock_home,
    refresh,
)
from trainables import config, contracts, plugin_store, plugins, sources
from trainables.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from sweeper.ledger.reader import Records
    from sweeper.ledger.rows import SweepId
    from sweeper.ledger.writer import Ledger
    from sweeper.machines.resources import Device, Machine
    from sweeper.scheduling.plan import Question
    from trainables.reading import Reading


MAX_STEPS = 10**9
PAPER = "paper"


def check_names(names: Sequence[str]) -> None:
    """Reject unknown names of sweeps.

    Raises:
        UnknownNameError: A sweep is unknown.
    """
    for name in names:
        search_spaces.check(name)


def find_questions(
    names: Sequence[str], chosen: SweepOptions, variant: VariantOptions, reading: Reading, home: Home
) -> list[Question]:
    """Return the sweeps at a scale, with what was typed about them; a label that the home has names its scale."""
    check_names(names)
    from sweeper.scheduling.plan import find_question
    from sweeper.scheduling.variants import PROTOCOL

    if variant.seeds == "":
        raise InputError("--seeds '': no seed is given.\nUse for example 0-9 or 0,3,7.")
    seeds = config.parse_seeds(variant.seeds) if variant.seeds is not None else None
    changed = config.parse_fields(variant.assignments)
    for name in PROTOCOL:
        value = changed.get(name, "")
        if value.isdecimal() and (len(value) > len(str(MAX_STEPS)) or int(value) > MAX_STEPS):
            raise InputError(f"--set {name}={value[:40]}: at most {MAX_STEPS:,}, for example {name}=1000.")
    data = sources.with_reading(variant.data, reading)
    return [
        find_question(name, _scale(name, chosen, home), seeds, changed, chosen.label, data)
        for name in dict.fromkeys(names)
    ]


def _scale(name: str, chosen: SweepOptions, home: Home) -> str:
    """Return the scale that was typed, that of the label in the home, or paper; that of a sweep with only one scale."""
    if chosen.scale:
        return chosen.scale
    if chosen.label and home.ledger.exists():
        known = [
            each for each in open_records(home).sweeps() if (each.name, each.label) == (name, chosen.label)
        ]
        if len(known) == 1:
            return known[0].scale
    scales = list(search_spaces.load(name).scales)
    return scales[0] if len(scales) == 1 else PAPER


def find_home(place: HomeOptions, *, is_written: bool = False, has_store: bool = False) -> Home:
    """Return the home that was named, after checking that it can be read or written.

    Args:
        place: Options of the home.
        is_written: Whether the command writes to the home.
        has_store: Whether the command opens an MLflow store in the home.
    """
    for option, folder in (("--home", place.home), ("--storage", place.storage)):
        if folder:
            check_length(option, folder)
            (check_folder if is_written else check_visible)(option, folder, folder)
    if has_store:
        check_letters(place.home)
    home = Home.at(place.home, place.storage)
    plugin_store.add_kept(home.storage)
    click.get_current_context().obj["home"] = home
    return home


def check_output(option: str, path: Path | None, suffixes: Sequence[str], home: Home) -> None:
    """Reject an output file unless it has one of these extensions and its folder is writable and not managed by a home."""
    if path is None:
        return
    if path.suffix not in suffixes:
        found = f"unsupported extension '{path.suffix}'" if path.suffix else "no extension"
        raise InputError(
            f"{option} {path}: {found}; expected {' or '.join(suffixes)}.\nFor example front{suffixes[0]}."
        )
    check_length(option, path)
    check_folder(option, path, path.parent)
    folder = Path(os.path.realpath(path.parent))
    for own in (home.storage, home.exports, home.artifacts):
        if folder.is_relative_to(os.path.realpath(own)):
            raise InputError(f"{option} {path}: {own} is managed by the sweeper.\nChoose another folder.")


def split_names(text: str) -> list[str]:
    """Return the names of a comma-separated list; a path of a file is added and becomes its name."""
    return [plugins.named(name.strip(), contracts.METRICS) for name in text.split(",")]


def repeated(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return the metrics of an option that may be repeated, each a comma-separated list; each metric once.

    Raises:
        InputError: One is unknown.
    """
    names = tuple(dict.fromkeys(name for each in metrics for name in split_names(each)))
    contracts.check_metrics(names)
    return names


def listed(option: str, metrics: str | None) -> tuple[str, ...]:
    """Return the metrics of a comma-separated list.

    Raises:
        InputError: One is unknown, or named twice.
    """
    names = tuple(split_names(metrics)) if metrics is not None else ()
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{option} {metrics}: '{twice}' is named twice.\nName each metric once.")
    contracts.check_metrics(names)
    return names


def find_machine(options: MachineOptions) -> Machine:
    """Return the machine or cluster that was named."""
    from sweeper.machines.joining import LOCAL, find_cluster
    from sweeper.machines.resources import Machine, check_device, check_share

    share, device = _share_and_device(options)
    if share is not None:
        check_share(share)
    asked = options.address
    if options.ray is False and asked != LOCAL:
        if asked and _is_typed("address"):
            raise InputError(
                f"--no-ray trains in this process, --address {asked} on a cluster.\nLeave out one of them."
            )
        asked = LOCAL
    found = find_cluster(asked, "--address" if _is_typed("address") else "SWEEPER_ADDRESS")
    if found.note:
        say(found.note)
    address = found.address
    kind, num_gpus = options.cluster_gpus
    if num_gpus and not address and _is_typed("cluster_gpus"):
        raise InputError(
            "--cluster-gpus needs a cluster.\nName one with --address, or leave out --cluster-gpus."
        )
    machine = Machine(
        address,
        share,
        cluster_gpus=num_gpus,
        cluster_gpu=kind,
        device=device,
        state_every_s=options.state_every,
        ray=options.ray,
    )
    check_device(machine)
    return machine


def _share_and_device(options: MachineOptions) -> tuple[float | None, Device]:
    """Return GPU share and device; if they contradict each other, a typed option overrides an environment variable."""
    share, device = options.gpus, options.device
    if share is not None and device != "auto" and (device == "cpu") != (share == 0):
        if _is_typed("device") and not _is_typed("gpus"):
            return None, device
        if _is_typed("gpus") and not _is_typed("device"):
            return share, "auto"
    return share, device


def _is_typed(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source == click.core.ParameterSource.COMMANDLINE


def check_ledger(home: Home, names: Sequence[str] = (), chosen: SweepOptions | None = None) -> None:
    """Bring the ledger of a home up to date, and reject a home without one.

    The sweeps that were named are in the command that would train them.
    """
    refresh(home, say)
    if not home.ledger.exists():
        for name in names:
            _check_trainable(name, chosen)
        what = "no results yet" if home.path.exists() else "no such folder"
        how = {"scale": chosen.scale, "label": chosen.label} if chosen else {}
        again = display.command("run", *(names or ["NAME"]), **how, home=home.path)
        raise InputError(f"--home {home.path}: {what}.\nTrain first: {again}")
    if not os.access(home.ledger, os.R_OK):
        raise InputError(f"--home {home.path}: no permission to read {home.ledger}.\nName another home.")


def _check_trainable(name: str, chosen: SweepOptions | None) -> None:
    """Reject a sweep or scale that does not exist, so that no command that trains it is suggested."""
    scales = search_spaces.load(name).scales
    if chosen and chosen.scale and chosen.scale not in scales:
        raise UnknownNameError("scale", chosen.scale, scales)


def open_records(home: Home, names: Sequence[str] = (), chosen: SweepOptions | None = None) -> Records:
    """Open the ledger of a home for reading, see `check_ledger`."""
    from sweeper.ledger.reader import Records

    check_ledger(home, names, chosen)
    return Records.open(home.ledger)


def known_sweeps(records: Records, names: Sequence[str], chosen: SweepOptions, home: Home) -> list[SweepId]:
    """Return the sweeps with these names, each of which the ledger must have."""
    return [_known_sweep(records, name, chosen, home) for name in dict.fromkeys(names)]


def _known_sweep(records: Records, name: str, chosen: SweepOptions, home: Home) -> SweepId:
    alike = [each for each in records.sweeps() if each.name == name]
    found = [each for each in alike if each.label == chosen.label and chosen.scale in ("", each.scale)]
    if len(found) == 1:
        return found[0]
    there = "; ".join(_options(each.scale, each.label) for each in found or alike)
    if found:
        raise InputError(
            f"Sweep {name} has results with {there} in {home.path}.\nName one of the scales with --scale."
        )
    if not alike:
        _check_trainable(name, chosen)
    train = display.command("run", name, scale=chosen.scale, label=chosen.label, home=home.path)
    remedy = f"It has results there with {there}." if alike else f"Train it first: {train}"
    options = _options(chosen.scale, chosen.label)
    lacking = f"no results with {options}" if options else "no results"
    raise InputError(f"Sweep {name} has {lacking} in {home.path}.\n{remedy}")


def _options(scale: str, label: str) -> str:
    return " ".join([*([f"--scale {scale}"] if scale else []), *([f"--as {label}"] if label else [])])


def say(line: str) -> None:
    """Print a line that is not part of the answer."""
    click.echo(line, err=True)


@contextmanager
def changing(
    names: Sequence[str], chosen: SweepOptions, place: HomeOptions
) -> Iterator[tuple[Home, Ledger, list[SweepId]]]:
    """In this context the home that was named is held, for a change to sweeps that its ledger, brought up to date, must have."""
    home = find_home(place, is_written=True)
    check_stored(home, must_exist=False)
    check_ledger(home, names, chosen)
    with driving(home, say) as ledger:
        ledger.ingest()
        yield home, ledger, known_sweeps(ledger.records, names, chosen, home)


def settle_storage(home: Home) -> None:
    """Record the path of a storage outside the home before anything else, so that the home never loses it."""
    if not home.is_settled:
        with driving(home, say):
            home.remember_storage()


def register(home: Home, files: Sequence[tuple[Path, str]], sweeps: Sequence[SweepId]) -> None:
    """Record written files in the ledger, so that `verify` checks them; only print a note if a driver holds the home."""
    from sweeper.ledger.writer import Ledger

    if not files:
        return
    try:
        check_folder("--home", home.path, home.path)
        with lock_home(home.path), Ledger(home.ledger, home.storage) as ledger:
            home.remember_storage()
            for path, kind in files:
                ledger.record_export(path, kind, sweeps)
    except InputError as error:
        click.echo(f"Not registered for verify: {error}", err=True)


def check_stored(home: Home, *, must_exist: bool = True) -> None:
    """Reject a home whose storage does not exist.

    Args:
        home: The home.
        must_exist: Whether a home without results is rejected, too.
    """
    note = home.path / STORAGE_PATH
    if home.storage.exists() or not (must_exist or note.is_file()):
        return
    if note.is_file():
        raise InputError(
            f"Storage {home.storage}, named in {note}, does not exist.\n"
            "If it was moved, write its new path into that file; if it is on a disk that is not mounted, mount it."
        )
    raise InputError(
        f"--home {home.path}: {home.storage} does not exist.\n"
        "Name the right home, or the folder of its blocks with --storage."
    )
