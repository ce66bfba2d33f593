import dataclasses
import random
import typing
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables import config, plugins
from trainables.config import Config, RunSpec, Schedule, Value, parse_fields, parse_seeds
from trainables.errors import InputError, UnknownNameError

MODELS = plugins.names("trainables.models")


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    kind: typing.Literal["plain", "fancy"] = "plain"

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise InputError("rate is above 0.")


@dataclass(frozen=True)
class Toy:
    weight: float = config.per_run(4.0)
    count: int = 3
    is_on: bool = True
    name: str = "a"
    sizes: tuple[int, ...] = (1, 2)
    limit: int | None = None
    inner: Inner = field(default_factory=Inner)


DEFAULT = Toy()


# Fields.


def test_a_configuration_is_flattened_in_order_under_dotted_names() -> None:
    assert config.flatten(DEFAULT) == {
        "weight": 4.0,
        "count": 3,
        "is_on": True,
        "name": "a",
        "sizes": (1, 2),
        "limit": None,
        "inner.rate": 0.5,
        "inner.kind": "plain",
    }
    assert list(config.flatten(DEFAULT))[-2:] == ["inner.rate", "inner.kind"]
    assert config.per_run_fields(DEFAULT) == ["weight"]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("weight", "7", 7.0),
        ("weight", "1e-4", 1e-4),
        ("count", "12", 12),
        ("count", "1e3", 1000),
        ("count", 5.0, 5),
        ("is_on", "false", False),
        ("is_on", "True", True),
        ("is_on", False, False),
        ("name", "some text", "some text"),
        ("sizes", "3,4,5", (3, 4, 5)),
        ("sizes", [7], (7,)),
        ("limit", "9", 9),
        ("limit", "none", None),
        ("limit", None, None),
        ("inner.rate", "2", 2.0),
        ("inner.kind", "fancy", "fancy"),
    ],
)
def test_a_value_is_read_as_the_type_of_its_field(name: str, text: Value, value: Value) -> None:
    changed = config.flatten(config.replace(DEFAULT, {name: text}))
    assert changed == config.flatten(DEFAULT) | {name: value}
    assert type(changed[name]) is type(value)
    assert config.flatten(DEFAULT)["weight"] == 4.0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("weight", "much", "weight=much: expected a number, for example weight=4."),
        ("weight", "inf", "weight=inf: expected a finite number, for example weight=4."),
        ("count", "2.5", "count=2.5: expected a whole number, for example count=3."),
        ("count", "inf", "count=inf: expected a whole number"),
        ("count", "nan", "count=nan: expected a whole number"),
        ("is_on", "yes", "is_on=yes: expected true or false"),
        ("sizes", "1,b", "sizes=b: expected a whole number"),
        ("limit", "few", "limit=few: expected a whole number"),
        ("inner.kind", "fency", "'fency'. Did you mean 'fancy'?\nValid: fancy, plain."),
        ("inner.rate", "-1", "inner.rate=-1: rate is above 0."),
    ],
)
def test_a_value_that_a_field_does_not_take_is_named_with_what_is_valid(
    name: str, text: str, message: str
) -> None:
    with pytest.raises(InputError) as error:
        config.replace(DEFAULT, {name: text})
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("name", "nearest"), [("wieght", "weight"), ("rate", "inner.rate"), ("inner.king", "inner.kind")]
)
def test_an_unknown_field_is_refused_with_the_nearest_name(name: str, nearest: str) -> None:
    with pytest.raises(UnknownNameError) as error:
        config.replace(DEFAULT, {name: "1"})
    assert f"Unknown field '{name}'. Did you mean '{nearest}'?" in str(error.value)
    assert all(valid in str(error.value) for valid in config.flatten(DEFAULT))


@pytest.mark.parametrize("name", ["inner", "weight.", "", "__class__", "zzzzzz"])
def test_what_is_no_single_field_is_no_field(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"Unknown field '{name}'"):
        config.replace(DEFAULT, {name: "1"})


def other_values(model_config: Config) -> dict[str, Value]:
    """Another valid value for every field of a configuration."""
    others: dict[str, Value] = {}
    pending = [("", model_config)]
    while pending:
        prefix, part = pending.pop()
        hints = typing.get_type_hints(type(part))
        for item in dataclasses.fields(part):
            value = getattr(part, item.name)
            if dataclasses.is_dataclass(value) and not isinstance(value, type):
                pending.append((f"{prefix}{item.name}.", value))
            elif typing.get_origin(hints[item.name]) is typing.Literal:
                others[prefix + item.name] = next(v for v in typing.get_args(hints[item.name]) if v != value)
            elif isinstance(value, bool):
                others[prefix + item.name] = not value
            else:
                others[prefix + item.name] = value + 1 if isinstance(value, int) else value / 2
    return others


@pytest.mark.parametrize("model", MODELS)
def test_the_text_of_a_value_is_read_as_the_value(model: str) -> None:
    default = plugins.load("trainables.models", model, "model").Config()
    values = config.flatten(default) | other_values(default)
    expected = config.replace(default, values)
    assert config.flatten(expected) == values
    assert config.replace(default, {name: str(value) for name, value in values.items()}) == expected


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        ("beta_vae", "beta", "-1"),
        ("beta_vae", "beta", "nan"),
        ("beta_vae", "beta", "inf"),
        ("beta_vae", "batch_size", "0"),
        ("factor_vae", "gamma", "-0.5"),
        ("factor_vae", "gamma", "inf"),
        ("factor_vae", "batch_size", "1"),
        ("factor_vae", "discriminator.depth", "0"),
        ("factor_vae", "discriminator.width", "0"),
        ("factor_vae", "discriminator.adam.beta1", "1"),
        ("beta_vae", "vae.latent_dim", "0"),
        ("beta_vae", "vae.width", "-3"),
        ("beta_vae", "adam.learning_rate", "0"),
        ("beta_vae", "adam.learning_rate", "nan"),
        ("beta_vae", "adam.beta2", "1.5"),
        ("beta_vae", "adam.epsilon", "0"),  # 0 / 0 where a unit has never fired
        ("beta_vae", "adam.epsilon", "-1e-8"),
    ],
)
def test_settings_that_cannot_be_trained_are_refused_by_name(model: str, field: str, value: str) -> None:
    default = plugins.load("trainables.models", model, "model").Config()
    with pytest.raises(InputError, match=rf"{field}={value}: "):
        config.replace(default, {field: value})


# Identity.


def key(
    changed: Config = DEFAULT,
    default: Config = DEFAULT,
    version: int = 1,
    recipe: str = "images v1",
    **changes: Any,
) -> str:
    spec = dataclasses.replace(RunSpec("toy", "images", {}, 3), **changes)
    return config.run_key(spec, version, default, changed, recipe)


def test_a_run_key_is_64_hexadecimal_digits_and_says_nothing_of_how_fields_were_given() -> None:
    assert len(key()) == 64
    assert int(key(), 16) >= 0
    changed = config.replace(DEFAULT, {"count": "4"})
    assert (
        key(changed, fields={"count": "4"})
        == key(changed, fields={"count": 4, "weight": 4.0})
        == key(changed)
    )


def test_everything_a_trajectory_depends_on_changes_the_key() -> None:
    keys = {
        key(),
        key(seed=4),
        key(precision="tf32"),
        key(model="other"),
        key(version=2),
        key(recipe="images v2"),
    }
    changes: dict[str, Value] = {
        "weight": 5,
        "count": 4,
        "is_on": False,
        "name": "b",
        "sizes": (1,),
        "limit": 0,
    }
    changes |= {"inner.rate": 0.25, "inner.kind": "fancy"}
    assert set(changes) == set(config.flatten(DEFAULT))
    keys |= {key(config.replace(DEFAULT, {name: value})) for name, value in changes.items()}
    assert len(keys) == 6 + len(changes)


@pytest.mark.parametrize("model", MODELS)
def test_every_field_of_a_model_changes_the_key(model: str) -> None:
    default = plugins.load("trainables.models", model, "model").Config()
    others = other_values(default)
    assert set(others) == set(config.flatten(default))
    changed = [config.replace(default, {name: value}) for name, value in others.items()]
    assert len({key(c, default) for c in [default, *changed]}) == len(others) + 1


def test_a_new_field_whose_default_means_as_before_leaves_old_keys_alone() -> None:
    newer = dataclasses.make_dataclass(
        "Newer", [("annealing", float, config.per_run(0.0))], bases=(Toy,), frozen=True
    )
    for changes in ({}, {"weight": 2}, {"inner.rate": 0.25, "count": 9}):
        old, new = (config.replace(default, changes) for default in (DEFAULT, newer()))
        assert key(new, newer()) == key(old, DEFAULT)
    assert key(newer(annealing=0.5), newer()) != key()


def test_where_the_data_lie_is_not_in_the_key() -> None:
    assert key(data="elsewhere") == key()


def test_a_static_key_leaves_out_what_may_vary_and_nothing_else() -> None:
    spec = RunSpec("toy", "images", {}, 3)
    static = config.static_key(spec, DEFAULT)
    assert (
        config.static_key(dataclasses.replace(spec, seed=9), config.replace(DEFAULT, {"weight": 9})) == static
    )
    others = {
        config.static_key(dataclasses.replace(spec, model="other"), DEFAULT),
        config.static_key(dataclasses.replace(spec, data="other"), DEFAULT),
        config.static_key(dataclasses.replace(spec, precision="tf32"), DEFAULT),
        config.static_key(spec, config.replace(DEFAULT, {"inner.kind": "fancy"})),
        config.static_key(spec, config.replace(DEFAULT, {"count": 4})),
    }
    assert len(others | {static}) == 6


def test_json_is_canonical() -> None:
    assert config.canonical_json({"b": [1.5, True], "a": "x"}) == '{"a":"x","b":[1.5,true]}'
    with pytest.raises(ValueError):
        config.canonical_json({"a": float("nan")})


# Schedules.


@given(st.integers(1, 60), st.integers(1, 25), st.integers(1, 25))
@settings(max_examples=40, deadline=None)
def test_the_next_event_is_the_next_report_evaluation_or_end(
    steps: int, report_every: int, evaluate_every: int
) -> None:
    schedule = Schedule(steps, report_every, evaluate_every, ())
    events = {
        s for s in range(1, steps + 1) if s % report_every == 0 or s % evaluate_every == 0 or s == steps
    }
    for step in range(steps):
        assert schedule.next_event(step) == min(event for event in events if event > step)


@pytest.mark.parametrize("numbers", [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_a_schedule_without_steps_is_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        Schedule(*numbers, ())


# What is typed.


@given(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 30)), min_size=1, max_size=6), st.randoms()
)
@settings(max_examples=40, deadline=None)
def test_seed_lists_are_read_as_their_numbers_sorted_and_once_each(
    ranges: list[tuple[int, int]], order: random.Random
) -> None:
    ranges = [(first, min(first + more, 2**32 - 1)) for first, more in ranges]
    parts = [
        f"{first}-{last}" if last > first or order.random() < 0.5 else f"{first}" for first, last in ranges
    ]
    expected = {seed for first, last in ranges for seed in range(first, last + 1)}
    assert parse_seeds(order.choice([",", ", "]).join(parts)) == tuple(sorted(expected))


@pytest.mark.parametrize(
    "text",
    ["", ",", "1,", "a", "-1", "1-", "3-2", "1.5", "1-2-3", "4294967296", "0-4294967296", "0x1", "1 2"],
)
def test_what_is_no_list_of_seeds_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=r"(?s)--seeds .*or example 0-9"):
        parse_seeds(text)


def test_a_few_seed_lists() -> None:
    assert parse_seeds("0-3,7") == (0, 1, 2, 3, 7)
    assert parse_seeds("7, 2-4,3") == (2, 3, 4, 7)
    assert parse_seeds("4294967295") == (2**32 - 1,)


plain_text = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=9)


@given(st.dictionaries(plain_text.filter(lambda name: "=" not in name), plain_text, max_size=5))
@settings(max_examples=40, deadline=None)
def test_assignments_are_read_as_name_and_text(fields: dict[str, str]) -> None:
    assert parse_fields(f"{name}={value}" for name, value in fields.items()) == fields
    assert parse_fields(f" {name} = {value} " for name, value in fields.items()) == fields


@pytest.mark.parametrize("text", ["gamma", "=3", "=", ""])
def test_what_assigns_nothing_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=r"is not an assignment\.\nUse field=value, for example gamma=10"):
        parse_fields([text])


@pytest.mark.parametrize("text", ["gamma=", "gamma= "])
def test_a_field_without_a_value_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InputError, match=rf"^'{text}' has no value\.\nUse field=value, for example gamma=10"):
        parse_fields([text])


# Names.


def test_an_unknown_name_shows_the_valid_ones_sorted_a_guess_and_a_remedy() -> None:
    error = UnknownNameError("sweep", "betta", ["gamma", "beta"], "List them with `sweeper list`.")
    assert str(error) == (
        "Unknown sweep 'betta'. Did you mean 'beta'?\nValid: beta, gamma.\nList them with `sweeper list`."
    )
    assert str(UnknownNameError("sweep", "qqq", [])) == "Unknown sweep 'qqq'.\nValid: none."
    assert isinstance(error, InputError)


def test_a_module_with_an_underscore_is_no_entry() -> None:
    assert {"beta_vae", "factor_vae"} <= set(MODELS)
    assert not any(name.startswith("_") for name in MODELS)
    with pytest.raises(UnknownNameError, match="Unknown model '_networks'"):
        plugins.check("trainables.models", "_networks", "model")
    with pytest.raises(UnknownNameError, match=r"Unknown model 'beta_va'. Did you mean 'beta_vae'\?"):
        plugins.load("trainables.models", "beta_va", "model")
    assert plugins.load("trainables.models", "beta_vae", "model").__name__ == "trainables.models.beta_vae"
