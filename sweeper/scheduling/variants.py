"""What a user changes in a sweep with `--set` and `--data`, and what a label in a home already stands for.

A label binds the data, the precision, every fixed field and the space: naming it again recalls them. Values may be added to
the space; any other change is refused, since the rows of one label would be of different models.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias, cast

from optuna.distributions import CategoricalDistribution

from search_spaces import Scale
from sweeper import display
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import MemberRow, SweepId
from trainables import sources
from trainables.config import PRECISIONS
from trainables.errors import InputError, UnknownNameError

Choice: TypeAlias = bool | int | float | str | None
"""A value of a hyperparameter, as Optuna's distributions have them."""

PROTOCOL = ("steps", "report_every", "evaluate_every")
"""Numbers of a scale that `--set` may change, in addition to its precision and the fields of the model."""


def changed(scale: Scale, fields: Mapping[str, str], data: str | None) -> Scale:
    """Return a scale with a user's changes.

    Args:
        scale: The scale.
        fields: Dotted fields of the model, hyperparameters or settings of the protocol, as typed.
        data: Data set, or the path of the user's own images; None for that of the scale.

    Raises:
        InputError: A value is invalid, or the data does not exist. Fields of the model are checked later, by the probe.
    """
    for name, value in fields.items():
        scale = _with(scale, name, value)
    return scale if data is None else replace(scale, data=sources.absolute(data))


def _with(scale: Scale, name: str, value: str) -> Scale:
    if name in PROTOCOL:
        if not value.isdecimal() or int(value) < 1:
            raise InputError(
                f"{name}={value}: expected a whole number of at least 1, for example {name}=1000."
            )
        return replace(scale, **{name: int(value)})  # type: ignore[arg-type]
    if name == "precision":
        if value not in PRECISIONS:
            raise UnknownNameError("precision", value, PRECISIONS)
        return replace(scale, precision=value)
    if name not in scale.space and "," not in value:
        return replace(scale, fields={**scale.fields, name: value})
    like = scale.space[name].choices if name in scale.space else ()
    items = [item.strip() for item in value.split(",")]
    if "" in items:
        raise InputError(
            f"{name}={value}: a value is empty.\nSeparate values by single commas, for example {name}=1,10."
        )
    choices = [_choice(name, item, like) for item in items]
    if len(set(choices)) < len(choices):
        raise InputError(
            f"{name}={value} has a value twice.\nList each value once; to repeat a draw, add seeds."
        )
    fields = {other: kept for other, kept in scale.fields.items() if other != name}
    return replace(scale, fields=fields, space={**scale.space, name: CategoricalDistribution(choices)})


def _choice(name: str, text: str, like: Sequence[Choice]) -> Choice:
    """Return a value of a hyperparameter, of the type of the values that it has; of the simplest type if it is new."""
    if like and not any(isinstance(value, str | bool) for value in like):
        try:
            number = float(text)
        except ValueError:
            raise InputError(
                f"{name}={text}: expected one or more numbers, for example {name}=1,10."
            ) from None
        return (
            int(number) if number.is_integer() and all(isinstance(value, int) for value in like) else number
        )
    if text in ("true", "false"):
        return text == "true"
    for read in (int, float):
        with suppress(ValueError):
            return read(text)
    return text


def recalled(records: Records, sweep: SweepId, scale: Scale) -> Scale:
    """Return what a label of a home stands for.

    Args:
        records: The ledger, which has the sweep.
        sweep: The sweep, with its label.
        scale: The scale as its module defines it; notes and the length of blocks are kept from it.
    """
    spec, members = records.spec(sweep), records.members(sweep)
    if not members:
        return scale
    return replace(
        scale,
        data=spec["data"],
        fields=spec["fields"],
        steps=spec["steps"],
        precision=members[0].spec["precision"],
        space={name: CategoricalDistribution(values) for name, values in _space(scale, members).items()},
        report_every=spec.get("report_every", scale.report_every),
        evaluate_every=spec.get("evaluate_every", scale.evaluate_every),
    )


def _space(scale: Scale, members: Sequence[MemberRow]) -> dict[str, list[Choice]]:
    """Return the values of every hyperparameter in the order of the draws; hyperparameters in the order of the scale."""
    names = sorted(members[0].params, key=lambda name: (name not in scale.space, name))
    in_order = [name for name in scale.space if name in names] + [n for n in names if n not in scale.space]
    rows = sorted(members, key=lambda row: row.draw)
    return {name: list(dict.fromkeys(cast(Choice, row.params[name]) for row in rows)) for name in in_order}


def check_space(sweep: SweepId, known: Scale, asked: Scale) -> None:
    """Reject a space that lacks values which a label already has.

    Raises:
        InputError: It lacks some.
    """
    for name, distribution in known.space.items():
        chosen = asked.space[name].choices if name in asked.space else ()
        if not set(distribution.choices) <= set(chosen):
            before, after = (
                ",".join(map(display.typed_value, each)) for each in (distribution.choices, chosen)
            )
            raise InputError(
                f"Sweep {sweep} already exists in this home with {name}={before}, not {after or 'one value'}.\n"
                f"To continue it, leave out --set or use --set {name}={before}, to which values may be added;"
                " for a new variant, choose another label with --as."
            )
