"""The contract of a sweep, over all entries found."""

import ast
import re
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution

import search_spaces
from search_spaces import Scale, Sweep
from sweeper.machines.probe import Probe
from sweeper.scheduling.plan import find_question
from trainables import plugins
from trainables.config import Schedule

NAMES = plugins.names("search_spaces")
SWEEPS = {name: plugins.load("search_spaces", name, "sweep").SWEEP for name in NAMES}
SCALES = [(name, scale) for name, sweep in SWEEPS.items() for scale in sweep.scales]


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_asks_one_question_of_a_model_that_exists(name: str) -> None:
    sweep = SWEEPS[name]
    assert isinstance(sweep, Sweep)
    assert sweep.question.endswith("?")
    assert len(sweep.question.splitlines()) == 1
    plugins.check("trainables.models", sweep.model, "model")


@pytest.mark.parametrize("name", NAMES)
def test_objectives_are_computed_and_their_direction_is_known(name: str) -> None:
    sweep = SWEEPS[name]
    assert len(sweep.objectives) >= 2
    assert len(set(sweep.metrics)) == len(sweep.metrics)
    assert set(sweep.objectives) <= set(sweep.metrics)
    for metric in sweep.metrics:
        module = plugins.load("trainables.metrics", metric, "metric")
        assert module.DIRECTION in ("minimize", "maximize")


@pytest.mark.parametrize("name", NAMES)
def test_a_sweep_can_be_asked_on_paper_on_a_laptop_and_in_a_moment(name: str) -> None:
    assert list(SWEEPS[name].scales) == ["paper", "laptop", "smoke"]
    assert SWEEPS[name].scales["smoke"].note, "numbers that mean nothing say so"


# Data, seeds, steps, steps between evaluations, values of the one hyperparameter: frozen, since results at one scale
# are compared with each other.
SIZES = {
    ("factorvae_gamma", "paper"): ("dsprites", 10, 300_000, 30_000, (1, 10, 20, 35, 40, 100)),
    ("factorvae_gamma", "laptop"): ("sprites", 5, 12_000, 1_200, (1, 10, 20, 40, 60)),
    ("factorvae_gamma", "smoke"): ("sprites", 2, 200, 100, (1, 60)),
    ("betavae_beta", "paper"): ("dsprites", 10, 300_000, 30_000, (1, 2, 4, 6, 8, 16)),
    ("betavae_beta", "laptop"): ("sprites", 5, 12_000, 1_200, (1, 1.5, 2, 3, 4)),
    ("betavae_beta", "smoke"): ("sprites", 2, 200, 100, (1, 4)),
    ("infowgan_gp", "laptop"): ("sprites", 5, 1_500, 150, (0, 0.1, 0.3, 1, 3)),
    ("infowgan_gp", "smoke"): ("sprites", 2, 60, 30, (0, 1)),
}


@pytest.mark.parametrize(("name", "scale"), SIZES)
def test_the_sizes_of_a_scale_are_frozen(name: str, scale: str) -> None:
    protocol = SWEEPS[name].scales[scale]
    (space,) = protocol.space.values()
    sizes = protocol.data, protocol.num_seeds, protocol.steps, protocol.evaluate_every, space.choices
    assert sizes == SIZES[name, scale]


def test_the_papers_grid_of_infowgan_gp_is_whole() -> None:
    paper = SWEEPS["infowgan_gp"].scales["paper"]
    assert len(paper.draws()) == 11 * 6 * 2 * 2
    assert (paper.data, paper.num_seeds, paper.steps) == ("dsprites", 10, 300_000)
    assert {draw["information"] for draw in paper.draws()} == {n / 10 for n in range(11)}


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_a_scale_is_whole(name: str, scale: str) -> None:
    protocol = SWEEPS[name].scales[scale]
    assert isinstance(protocol, Scale)
    plugins.check("trainables.data", protocol.data, "data set")
    assert protocol.num_seeds >= 2, "one seed has no error bar"
    assert protocol.steps % protocol.evaluate_every == 0
    assert protocol.block_s > 0
    Schedule(protocol.steps, protocol.report_every, protocol.evaluate_every, SWEEPS[name].metrics)


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_a_space_has_draws_and_none_twice(name: str, scale: str) -> None:
    protocol = SWEEPS[name].scales[scale]
    assert all(isinstance(each, CategoricalDistribution) for each in protocol.space.values())
    draws = protocol.draws()
    assert len(draws) >= 2
    assert all(set(draw) == set(protocol.space) for draw in draws)
    assert len({tuple(draw.items()) for draw in draws}) == len(draws)
    assert not set(protocol.space) & set(protocol.fields), "a field is searched or set"


@pytest.mark.parametrize(("name", "scale"), SCALES)
def test_a_model_takes_every_field_and_each_draw_and_seed_is_another_run(
    name: str, scale: str, probe: Probe
) -> None:
    question = find_question(name, scale)
    runs = [run for _, runs in question.specs() for run in runs]
    found = probe.resolve(runs)
    assert len({run.key for run in found}) == len(runs)
    for run, resolved in zip(runs, found, strict=True):
        assert resolved.spec["fields"].items() >= run.fields.items()


@pytest.mark.parametrize("name", NAMES)
def test_smoke_takes_moments_and_every_scale_less_than_the_one_before(name: str) -> None:
    work = [scale.steps * scale.num_seeds * len(scale.draws()) for scale in SWEEPS[name].scales.values()]
    assert work == sorted(work, reverse=True)
    assert work[-1] <= 5_000


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_says_the_command_the_cost_and_what_to_expect(name: str) -> None:
    path = Path(search_spaces.__path__[0]) / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text is not None
    assert text.partition("?")[0] + "?" == SWEEPS[name].question
    sections = re.findall(r"^(\w+): (.+)$", text, re.MULTILINE)
    assert [title for title, _ in sections] == ["Command", "Cost", "Expected"]
    assert dict(sections)["Command"].startswith(f"python -m sweeper run {name} ")


def test_a_space_of_several_hyperparameters_is_their_product() -> None:
    space = {"a": CategoricalDistribution([1, 2]), "b": CategoricalDistribution(["x", "y", "z"])}
    draws = Scale("sprites", space, 1, 1, 1, 1, 1.0, {}).draws()
    assert draws == [{"a": a, "b": b} for a in (1, 2) for b in "xyz"]
