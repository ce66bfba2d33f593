"""Configurations as frozen dataclasses: dotted fields, what may vary inside a pack, and the identity of a run.

A model's `Config` is a frozen dataclass of numbers, strings, bools, tuples of them and nested such dataclasses.
A field made by `per_run` may differ between the runs of a pack; all others are the same for the whole pack.
"""

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, TypedDict, TypeVar

from trainables.errors import InputError, UnknownNameError

Precision = Literal["fp32", "tf32", "bf16"]
"""Arithmetic of matrix products and convolutions; parameters, moments and losses are always float32.

With bf16 the results of products are stored as bfloat16, too."""

PRECISIONS: tuple[Precision, ...] = typing.get_args(Precision)

STATE_EVERY_S = 120.0
"""Default training time between two states, unless writing them takes too large a share of it, see `committing`."""


Value: TypeAlias = "bool | int | float | str | Sequence[Value] | None"
"""Value of a field of a configuration; a tuple becomes a list where it is stored as JSON."""


class Config(Protocol):
    """A configuration: any frozen dataclass of values and of nested configurations."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


C = TypeVar("C", bound=Config)


def per_run(default: float) -> float:
    """Declare a float field that may differ between the runs of a pack."""
    field: float = dataclasses.field(default=default, metadata={"per_run": True})
    return field


def flatten(config: Config) -> dict[str, Value]:
    """All fields of a nested configuration as `{"adam.beta1": 0.9, ...}`, in the order of declaration."""
    flat: dict[str, Value] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            flat.update({f"{field.name}.{name}": inner for name, inner in flatten(value).items()})
        else:
            flat[field.name] = value
    return flat


def per_run_fields(config: Config, prefix: str = "") -> list[str]:
    """Dotted names of the fields that may differ inside a pack."""
    found = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found += per_run_fields(value, f"{prefix}{field.name}.")
        elif field.metadata.get("per_run"):
            found.append(prefix + field.name)
    return found


def replace(config: C, changes: Mapping[str, Value]) -> C:
    """A copy of a configuration with dotted fields changed.

    Values may be strings, as typed on a command line; they are converted to the type of the field.

    Raises:
        InputError: No such field, or an invalid value for it.
    """
    valid = flatten(config)
    for name, value in changes.items():
        if name not in valid:
            raise UnknownNameError("field", name, valid)
        config = _replace_one(config, name.split("."), name, value)
    return config


def _replace_one(config: C, path: list[str], name: str, value: Value) -> C:
    head, *rest = path
    if rest:
        inner = _replace_one(getattr(config, head), rest, name, value)
        return dataclasses.replace(config, **{head: inner})
    read = _read(typing.get_type_hints(type(config))[head], value, name, getattr(config, head))
    try:
        return dataclasses.replace(config, **{head: read})
    except InputError as error:
        raise InputError(f"{name}={value}: {error}") from None


def _read(kind: Any, value: Any, name: str, now: Value) -> Any:
    """Convert a value, or its text, to the type of its field; an error shows the field's present value as an example."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise UnknownNameError(f"value for {name}:", str(value), map(str, arguments))
        return value
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        first = next(iter(now), None) if isinstance(now, Sequence) else None
        return tuple(_read(arguments[0], item, name, first) for item in items)
    if origin in (types.UnionType, typing.Union):
        return None if value in (None, "none") else _read(arguments[0], value, name, now)
    try:
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if kind is int and float(value) != int(float(value)):
            raise ValueError
        read = int(float(value)) if kind is int else kind(value)
        if kind is float and not math.isfinite(read):
            raise OverflowError
        return read + 0.0 if kind is float else read  # -0 and 0 train alike
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        number = "a finite number" if isinstance(error, OverflowError) else "a number"
        wanted = {bool: "true or false", int: "a whole number", float: number}.get(kind, kind.__name__)
        raise InputError(
            f"{name}={value}: expected {wanted}, for example {name}={_example(kind, now)}."
        ) from None


def _example(kind: type, now: Value) -> str:
    if now is None:
        return {bool: "true", int: "10", float: "0.5"}.get(kind, "text")
    return f"{now:g}" if isinstance(now, float) else str(now).lower() if isinstance(now, bool) else str(now)


@dataclass(frozen=True)
class RunSpec:
    """The specification of one run: trained once, recorded once, resumed exactly; needs no torch.

    Attributes:
        model: Entry of `trainables.models`.
        data: Entry of `trainables.data`, or the path of your own images.
        fields: Dotted fields of the model's configuration to set; the others keep their defaults.
        seed: Seed of every random number of the run, 0 .. 2**32 - 1.
        precision: Arithmetic of matrix products and convolutions.
    """

    model: str
    data: str
    fields: Mapping[str, Value]
    seed: int
    precision: Precision = "fp32"


def but_for_seed(spec: RunSpec) -> str:
    """A text that is equal for runs that differ in their seeds alone."""
    return repr((spec.model, spec.data, spec.precision, sorted(spec.fields.items())))


class StoredSpec(TypedDict):
    """The specification of a run as a ledger and its blocks keep it: a `RunSpec` with every field filled in.

    `recipe` is that of the images, see `images.Source`.
    """

    model: str
    data: str
    fields: Mapping[str, Value]
    seed: int
    precision: Precision
    recipe: str


def spec_of(stored: StoredSpec) -> RunSpec:
    """The `RunSpec` of a stored specification."""
    return RunSpec(stored["model"], stored["data"], stored["fields"], stored["seed"], stored["precision"])


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def run_keys(
    spec: RunSpec, seeds: Iterable[int], version: int, default: Config, config: Config, recipe: str
) -> list[str]:
    """Identity of a run with each of these seeds: sha256 of everything that its trajectory depends on.

    Fields at the default of this version of the model are left out, so that a new field whose default means "as
    before" does not change old keys. The horizon, evaluation, machine, pack and code are not part of it.

    Args:
        spec: The run; its seed does not matter.
        seeds: Its seeds.
        version: `VERSION` of the model.
        default: The model's `Config()`, with usual values in place of `auto`.
        config: The run's configuration.
        recipe: The recipe of the images, see `Source.recipe`.

    Returns:
        64 hexadecimal digits for each seed.
    """
    defaults = flatten(default)
    identity = {
        "model": spec.model,
        "version": version,
        "fields": {name: value for name, value in flatten(config).items() if value != defaults[name]},
        "data": recipe,
        "precision": spec.precision,
    }
    return [hashlib.sha256(canonical_json(identity | {"seed": seed}).encode()).hexdigest() for seed in seeds]


def run_key(spec: RunSpec, version: int, default: Config, config: Config, recipe: str) -> str:
    """Identity of a run, see `run_keys`."""
    return run_keys(spec, [spec.seed], version, default, config, recipe)[0]


def static_key(spec: RunSpec, config: Config) -> str:
    """What the runs of a pack must have in common, as canonical JSON."""
    varying = set(per_run_fields(config))
    shared = {name: value for name, value in flatten(config).items() if name not in varying}
    return canonical_json(
        {"model": spec.model, "data": spec.data, "precision": spec.precision, "fields": shared}
    )


@dataclass(frozen=True)
class Schedule:
    """How long to train and when to report and evaluate; none of it changes a run's numbers.

    Attributes:
        steps: Horizon, in updates.
        report_every: Updates between training statistics.
        evaluate_every: Updates between evaluations; the horizon is always evaluated.
        metrics: Entries of `trainables.metrics` to compute at evaluations.
    """

    steps: int
    report_every: int
    evaluate_every: int
    metrics: tuple[str, ...]

    def __post_init__(self) -> None:
        if min(self.steps, self.report_every, self.evaluate_every) < 1:
            raise InputError(
                f"steps={self.steps}, report_every={self.report_every}, evaluate_every={self.evaluate_every}:"
                " each must be at least 1."
            )

    def next_event(self, step: int) -> int:
        """The next step with a report or an evaluation, or the horizon."""
        following = [(step // every + 1) * every for every in (self.report_every, self.evaluate_every)]
        return min(*following, self.steps)


MAX_SEEDS = 100_000
"""Most seeds in one range; more is probably a typo."""


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse a list of seeds such as `0-3,7`; sorted, without duplicates.

    Raises:
        InputError: The text is not such a list.
    """
    seeds: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 40:
            raise InputError(
                f"--seeds {text}: '{part}' is not a seed or a range.\nUse for example 0-9 or 0,3,7."
            )
        ends = int(first), int(last or first)
        if ends[0] > ends[1] or ends[1] >= 2**32:
            raise InputError(
                f"--seeds {text}: '{part}' is not an ascending range within 0 .. {2**32 - 1}.\nUse for example 0-9."
            )
        if ends[1] - ends[0] >= MAX_SEEDS:
            raise InputError(
                f"--seeds {text}: '{part}' has more than {MAX_SEEDS:,} seeds.\nUse for example 0-9."
            )
        seeds.update(range(ends[0], ends[1] + 1))
    return tuple(sorted(seeds))


def parse_fields(assignments: Iterable[str]) -> dict[str, str]:
    """Parse assignments such as `vae.latent_dim=6`.

    Raises:
        InputError: One is not an assignment, or sets a field again.
    """
    fields = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise InputError(f"'{assignment}' is not an assignment.\nUse field=value, for example gamma=10.")
        if not value.strip():
            raise InputError(f"'{assignment}' has no value.\nUse field=value, for example gamma=10.")
        if name.strip() in fields:
            raise InputError(f"'{assignment}': {name.strip()} is set twice.\nSet it once.")
        fields[name.strip()] = value.strip()
    return fields
