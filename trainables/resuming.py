"""What a storage has to resume from, and what is said where it has nothing for the runs that are asked for."""

import contextlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainables import blocks, config, contracts, fitting, reading, sources
from trainables.assignment import StoredState
from trainables.blocks import Status
from trainables.config import StoredSpec
from trainables.durable import DamagedBlockError
from trainables.errors import InputError, UnknownNameError, reason
from trainables.layout import Layout


@dataclass
class SavedRun:
    """What a storage has of a run.

    Attributes:
        spec: Its specification.
        status: As of its last block.
        newest: Step of its last block.
        states: Its states by the blocks that have them; their files may have been pruned.
    """

    spec: StoredSpec
    status: Status
    newest: int = 0
    states: list[StoredState] = field(default_factory=list)


def check_storage(storage: Path) -> None:
    """Check that a folder has blocks.

    Raises:
        InputError: It is missing or has none.
    """
    try:
        is_there, is_folder = storage.exists(), storage.is_dir()
        has_blocks = is_folder and bool(Layout(storage).manifests())
    except OSError as error:
        raise InputError(
            f"--resume {storage}: {reason(error)}.\nName the folder of an earlier --out."
        ) from None
    if not has_blocks:
        wrong = "is a file; expected a folder" if is_there else "no such folder"
        found = "no blocks in it" if is_folder else wrong
        raise InputError(
            f"--resume {storage}: {found}.\nName the folder of an earlier --out, or start anew with --out."
        )


def saved_runs(storage: Path) -> dict[str, SavedRun]:
    """The runs of a storage, by their keys; damaged blocks are told and passed over."""
    saved: dict[str, SavedRun] = {}
    for path in Layout(storage).manifests():
        try:
            entries = blocks.read_manifest(path).runs
        except DamagedBlockError as error:
            print(f"{error} Falling back to an older block.", file=sys.stderr)
            continue
        for entry in entries:
            run = saved.setdefault(entry.key, SavedRun(entry.spec, entry.status))
            run.status, run.newest = entry.status, max(run.newest, entry.step)
            if blocks.STATE in entry.slices:
                run.states.append(StoredState(entry.step, str(path), entry.slices[blocks.STATE]))
    return saved


def refusal(storage: Path, saved: Mapping[str, SavedRun], keys: Sequence[str], horizon: int) -> InputError:
    """The error where these runs have no states at a common step up to the horizon."""
    if not saved:
        return InputError(f"--resume {storage}: no intact blocks in it.\nStart anew with --out.")
    wanted = [saved[key] for key in keys if key in saved]
    if len(wanted) < len(keys):
        some = f"has only {len(wanted)} of these {len(keys)} runs"
        return InputError(
            f"--resume {storage}: {some if wanted else 'has no run with these options'}. It has:\n  {_described(saved.values())}\n"
            "Repeat these options, or start anew with --out."
        )
    if diverged := [run for run in wanted if run.status == "diverged"]:
        seeds = ranges(run.spec["seed"] for run in diverged)
        return InputError(
            f"--resume {storage}: seeds that diverged have no states to resume from: {seeds}.\n"
            "Leave them out of --seeds, or start anew with --out."
        )
    earliest = [min(map(_step, filter(_is_there, run.states)), default=0) for run in wanted]
    if all(earliest) and max(earliest) > horizon:
        return InputError(
            f"--steps {horizon}: {storage} has these runs at step {max(earliest)} already, and no earlier states.\n"
            f"Use --steps {max(earliest)} or more, or start anew with --out."
        )
    return InputError(
        f"--resume {storage}: these runs have no intact states at a common step.\n"
        "Resume one seed at a time with --seeds, or start anew with --out."
    )


def _step(state: StoredState) -> int:
    return state.step


def _is_there(state: StoredState) -> bool:
    return (Path(state.manifest).parent / state.slice.file).exists()


def _described(runs: Iterable[SavedRun]) -> str:
    """The runs as options that a person would type, as far as one line holds them."""
    groups: dict[str, list[SavedRun]] = {}
    for run in runs:
        groups.setdefault(_options(run.spec), []).append(run)
    lines = []
    for options, group in groups.items():
        steps = sorted({run.newest for run in group})
        reached = f"step {steps[-1]}" if len(steps) == 1 else f"steps {steps[0]} to {steps[-1]}"
        lines.append(f"{options} --seeds {ranges(run.spec['seed'] for run in group)} (at {reached})")
    more = f"; and {len(lines) - 2} other settings" if len(lines) > 2 else ""
    return "; ".join(lines[:2]) + more


def _options(spec: StoredSpec) -> str:
    fields = dict(spec["fields"])
    with contextlib.suppress(UnknownNameError):
        default = config.flatten(fitting.usual(contracts.model(spec["model"]).Config()))
        fields = {name: value for name, value in fields.items() if value != default.get(name)}
    changed = "".join(f" --set {name}={value}" for name, value in fields.items())
    precision = "" if spec["precision"] == "fp32" else f" --precision {spec['precision']}"
    images = f" [{spec['recipe']}]" if sources.is_path(spec["data"]) else ""
    return f"{spec['model']} {reading.typed(spec['data'])}{images}{changed}{precision}"


def ranges(seeds: Iterable[int]) -> str:
    """Seeds as they are typed, for example `0-3,7`."""
    found: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if found and seed == found[-1][-1] + 1:
            found[-1][1:] = [seed]
        else:
            found.append([seed])
    return ",".join("-".join(map(str, ends)) for ends in found)
