"""The laws of a model, tried on random images on the CPU: a pack trains each run as if it were alone.

Shape suffixes: R runs, B batch, D dimensions of a code, V values of a traversal, P numbers of a buffer.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType

import numpy as np
import torch

from trainables import arithmetic, config, engine, evaluation, plugins
from trainables.checking.laws import Law, Verdict, check_names, judge, require
from trainables.config import Config, RunSpec, Value
from trainables.contracts import MODELS
from trainables.engine import Pack, ResolvedRun
from trainables.errors import InputError
from trainables.images import Images, random_images

SHAPES = ((1, 16, 16), (1, 64, 64), (3, 64, 64))
"""Images (C, H, W) to try, in order; the first that the model accepts are used."""

NUM_IMAGES = 256

SEEDS = (0, 1, 2)
NUM_STEPS = 2
"""Steps before and after an interruption."""

State = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Subject:
    """A model with what its packs are made from.

    Attributes:
        reference: What names the model.
        module: Its module.
        fields: Fields of the configuration to set.
    """

    reference: str
    module: ModuleType
    fields: Mapping[str, Value]

    @cached_property
    def images(self) -> Images:
        """Random images of the first shape that the model accepts.

        Raises:
            InputError: It accepts none.
        """
        refused = ""
        for shape in SHAPES:
            try:
                self.module.check_shape(config.replace(self.module.Config(), self.fields), shape)
            except InputError as error:
                refused = str(error)
            else:
                return random_images(shape, NUM_IMAGES, torch.device("cpu"))
        tried = ", ".join("x".join(map(str, shape)) for shape in SHAPES)
        raise InputError(
            f"check_shape refuses all images that were tried ({tried}), the last one with: {refused}"
        )

    @cached_property
    def runs(self) -> list[ResolvedRun]:
        """Runs of one pack that differ in everything that may differ in one."""
        return [
            engine.resolve_on(
                RunSpec(self.reference, "random", self._fields(scale), seed), self.images.source
            )
            for seed, scale in zip(SEEDS, (1.0, 2.0, 0.5), strict=True)
        ]

    def _fields(self, scale: float) -> dict[str, Value]:
        """The fields of a run, with those that may differ in a pack at a multiple of their default if that is valid."""
        fields = dict(self.fields)
        default = config.flatten(config.replace(self.module.Config(), fields))
        for name in config.per_run_fields(self.module.Config()):
            value = default[name]
            assert isinstance(value, float)
            try:
                config.replace(self.module.Config(), {**fields, name: scale * value})
            except InputError:
                continue
            fields[name] = scale * value
        return fields

    def pack(self, runs: Sequence[ResolvedRun] | None = None) -> Pack:
        """A new pack of these runs, or of all."""
        return Pack(self.runs if runs is None else runs, self.images)


def check(name: str, fields: Mapping[str, Value] | None = None) -> list[Verdict]:
    """Check a model by its name.

    Args:
        name: Its name.
        fields: Fields of the configuration to set, for example to make it small.
    """
    arithmetic.set_arithmetic("fp32", 1)
    reference, module = plugins.reference(MODELS, name), plugins.load(MODELS, name, "model")
    return judge(lambda: Subject(reference, module, fields or {}), LAWS)


def _declared(subject: Subject) -> None:
    check_names(subject.module, {"VERSION": int, "Config": type, "Model": type, "check_shape": object})
    require(subject.module.VERSION >= 1, f"VERSION is {subject.module.VERSION}; expected at least 1.")
    require(
        (subject.module.__doc__ or "").strip(), "the file has no docstring. Say what the model minimizes."
    )


def _documented(subject: Subject) -> None:
    pending: list[Config] = [subject.module.Config()]
    while pending:
        part = pending.pop()
        name = type(part).__name__
        is_frozen = dataclasses.is_dataclass(part) and type(part).__dataclass_params__.frozen  # type: ignore[attr-defined]
        require(is_frozen, f"{name} is not a frozen dataclass. Write @dataclass(frozen=True) above it.")
        for field in dataclasses.fields(part):
            require(
                re.search(rf"^\s+{field.name}: \S", type(part).__doc__ or "", re.MULTILINE),
                f"field {field.name} of {name} is not documented. "
                f"Add a line '{field.name}: ...' below 'Attributes:' in its docstring.",
            )
            value = getattr(part, field.name)
            pending += [value] if dataclasses.is_dataclass(value) and not isinstance(value, type) else []


def _update(pack: Pack) -> dict[str, torch.Tensor]:
    """Train a pack by one step, and return what the model returns."""
    drawn = {name: values[0] for name, values in pack.generate_inputs(torch.arange(1)).items()}
    return pack.model.update(pack.gathered(drawn), pack.alive_R, is_reported=True)


def _trains(subject: Subject) -> None:
    pack = subject.pack()
    found = _update(pack)
    for name, value_R in found.items():
        shape = tuple(value_R.shape)
        require(
            shape == (len(pack.seeds),),
            f"update returns {name} of shape {shape}; expected one value per run.",
        )
        require(not value_R.requires_grad, f"update returns {name} with a gradient. Return {name}.detach().")
    lacking = {"alive", "loss"} - set(found)
    require(not lacking, f"update does not return {' and '.join(sorted(lacking))}.")
    pack = subject.pack()
    pack.advance(NUM_STEPS)
    for seed, values in zip(SEEDS, pack.statistics(), strict=True):
        bad = [name for name, value in values.items() if not np.isfinite(value)]
        require(not bad, f"{', '.join(bad)} of seed {seed} is not finite after {NUM_STEPS} steps.")
    require(not any(bad is not None for bad in pack.first_bad_steps()), "a run diverged within two steps.")


def _moves_everything(subject: Subject) -> None:
    """Biases may have no gradient, such as the last one of a critic whose outputs are subtracted."""
    pack = subject.pack()
    before = {name: weight.detach().clone() for name, weight in _weights(pack).items()}
    pack.advance(2 * NUM_STEPS)
    stuck = [name for name, weight in _weights(pack).items() if torch.equal(weight, before[name])]
    require(not stuck, f"these weights never change, so no gradient reaches them: {', '.join(stuck)}.")


def _weights(pack: Pack) -> dict[str, torch.Tensor]:
    return {
        f"{name} of {network}": tensor
        for network, adam in pack.model.optimizers.items()
        for name, tensor in adam.parameters.tensors.items()
        if tensor.dim() > 2
    }


def _alone(subject: Subject) -> None:
    together = subject.pack()
    together.advance(NUM_STEPS)
    for r, run in enumerate(subject.runs):
        alone = subject.pack([run])
        alone.advance(NUM_STEPS)
        if differs := _difference(alone.state(0), together.state(r)):
            require(
                False,
                f"after {NUM_STEPS} steps {differs} of seed {SEEDS[r]} differs between a pack of {len(SEEDS)} and the "
                "run alone. Nothing may be summed, averaged or normalized over runs (the first axis).",
            )


def _ordered(subject: Subject) -> None:
    one, other = subject.pack(), subject.pack(subject.runs[::-1])
    for pack in (one, other):
        pack.advance(NUM_STEPS)
    for r, state in enumerate(reversed(other.states())):
        differs = _difference(one.state(r), state)
        require(not differs, f"{differs} of seed {SEEDS[r]} depends on its place in the pack.")


def _survives(subject: Subject) -> None:
    healthy, ill = subject.pack(), subject.pack()
    for adam in ill.model.optimizers.values():
        with torch.no_grad():
            adam.parameters.values_RP[0] = torch.nan
    for pack in (healthy, ill):
        pack.advance(NUM_STEPS)
    require(
        ill.first_bad_steps()[0] is not None,
        "a run with NaN parameters counts as alive: `alive` must be what the optimizers' step returns.",
    )
    for r in range(1, len(SEEDS)):
        differs = _difference(healthy.state(r), ill.state(r))
        require(not differs, f"NaN in seed {SEEDS[0]} changes {differs} of seed {SEEDS[r]}.")


def _resumes(subject: Subject) -> None:
    straight, first, second = subject.pack(), subject.pack(), subject.pack()
    straight.advance(2 * NUM_STEPS)
    first.advance(NUM_STEPS)
    second.restore(NUM_STEPS, first.states())
    second.advance(NUM_STEPS)
    for r, seed in enumerate(SEEDS):
        differs = _difference(straight.state(r), second.state(r))
        require(
            not differs,
            f"{differs} of seed {seed} differs between {2 * NUM_STEPS} steps at once and {NUM_STEPS} + {NUM_STEPS} with a "
            "resume between. What steps change belongs in `optimizers` or `buffers`.",
        )


def _draws_nothing(subject: Subject) -> None:
    pack = subject.pack()
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002
    _update(pack)
    after = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    require(
        torch.equal(before[0], torch.get_rng_state()) and (before[1] == after).all(),
        "update draws random numbers itself. Ask for them in `random_inputs`, so that a run can be repeated.",
    )


def _codes(subject: Subject) -> None:
    pack, num_runs = subject.pack(), len(SEEDS)
    model, num_codes = pack.model, len(pack.model.discrete_D)
    x_RBCHW = subject.images.at(torch.arange(4 * len(pack.seeds)).view(len(pack.seeds), 4))
    with torch.no_grad():
        mu_RBD, logvar_RBD = model.encode(x_RBCHW)
        decoded = model.decode(mu_RBD)
    wanted = (len(pack.seeds), 4, num_codes)
    require(
        mu_RBD.shape == wanted, f"encode returns codes of shape {tuple(mu_RBD.shape)}; expected {wanted}."
    )
    if logvar_RBD is not None:
        require(
            logvar_RBD.shape == wanted, f"encode returns log variances of shape {tuple(logvar_RBD.shape)}."
        )
    require(
        decoded.shape == x_RBCHW.shape,
        f"decode returns shape {tuple(decoded.shape)}; expected {tuple(x_RBCHW.shape)}.",
    )
    require(
        bool(((decoded >= 0) & (decoded <= 1)).all()),
        "decode returns values outside [0, 1]. Return the mean of the pixels.",
    )
    require(
        model.HAS_LIKELIHOOD == (logvar_RBD is not None) == hasattr(model, "logits"),
        "HAS_LIKELIHOOD, `logits` and log variances from `encode` belong together: have all of them or none.",
    )
    require(
        model.traversal_DV.shape[0] == num_codes,
        f"traversal_DV has {model.traversal_DV.shape[0]} rows; expected {num_codes}.",
    )
    unknown = set(model.KEPT) - set(model.optimizers)
    require(not unknown, f"KEPT names {', '.join(sorted(unknown))}, which is not in `optimizers`.")
    encodings, pictures = evaluation.encodings(pack), evaluation.pictures(pack)
    require(
        len(encodings) == len(pictures) == len(pack.weights()) == num_runs, "not every run can be evaluated."
    )


def _difference(one: State, other: State) -> str:
    """The name of the first array that differs between two states, empty if none does."""
    if set(one) != set(other):
        return ", ".join(sorted(set(one) ^ set(other)))
    return next((name for name in one if one[name].tobytes() != other[name].tobytes()), "")


LAWS = (
    Law("it declares VERSION, Config, Model and check_shape", _declared),
    Law("every field of Config is documented", _documented),
    Law("it trains, and its statistics are finite", _trains),
    Law("every weight has a gradient", _moves_everything),
    Law("a run is the same alone and in a pack", _alone),
    Law("a run does not depend on its place in a pack", _ordered),
    Law("a run that diverges harms no other", _survives),
    Law("a resumed run is the same, bit for bit", _resumes),
    Law("all random numbers come from random_inputs", _draws_nothing),
    Law("codes, images and weights have the declared shapes", _codes),
)
