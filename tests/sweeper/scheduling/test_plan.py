import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search_spaces import betavae_beta, factorvae_gamma, infowgan_gp
from sweeper.analysis import labels
from sweeper.ledger import verify
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.ledger.writer import Ledger
from sweeper.machines.probe import Probe
from sweeper.scheduling.plan import Planned, Question, find_question, plan
from tests.specs import run_spec
from trainables.blocks import Manifest, RunEntry, Status, write_block
from trainables.config import Schedule
from trainables.errors import InputError, UnknownNameError

SMOKE = factorvae_gamma.SWEEP.scales["smoke"]


@pytest.fixture(scope="module")
def planned(probe: Probe) -> Planned:
    """A question of two draws and two seeds, its runs identified."""
    (planned,) = plan([find_question("factorvae_gamma", "smoke")], probe, None)
    return planned


def test_more_runs_than_a_command_can_plan_are_refused_at_once(probe: Probe) -> None:
    questions = [find_question("factorvae_gamma", "smoke", tuple(range(50_000)))]
    questions += [find_question("betavae_beta", "smoke", (0,))]
    with pytest.raises(InputError, match=r"^100,002 runs .* more than 100,000.*\n.*--seeds 0-9"):
        plan(questions, probe, None)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        yield ledger


def commit(ledger: Ledger, key: str, status: Status, step: int, horizon: int) -> None:
    """A worker's block that ends a run."""
    number = ledger.begin_attempt([key])
    bad = step if status == "diverged" else None
    run = RunEntry(key, 0, status, step, horizon, run_spec("factor_vae"), bad)
    manifest = Manifest(number, 0, 0, step, "here", "1", 1e9, 1.0, (run,), ())
    ledger.take(write_block(ledger.storage, manifest, {key: {"state": b"x"}} if bad is None else {}))
    ledger.end_attempt(number, "done")


def test_a_question_is_the_sweep_at_its_scale() -> None:
    question = find_question("betavae_beta", "smoke")
    scale = betavae_beta.SWEEP.scales["smoke"]
    assert question.id == SweepId("betavae_beta", "smoke")
    assert (question.sweep, question.scale) == (betavae_beta.SWEEP, scale)
    assert question.seeds == tuple(range(scale.num_seeds))
    assert question.schedule == Schedule(
        scale.steps, scale.report_every, scale.evaluate_every, betavae_beta.SWEEP.metrics
    )


def test_every_draw_has_every_seed_and_only_they_differ() -> None:
    question = find_question("factorvae_gamma", "smoke", seeds=(3, 5))
    specs = question.specs()
    assert [draw for draw, _ in specs] == SMOKE.draws()
    for draw, runs in specs:
        assert [run.seed for run in runs] == [3, 5]
        assert all(run.fields == {**SMOKE.fields, **draw} for run in runs)
        assert {(run.model, run.data, run.precision) for run in runs} == {("factor_vae", "sprites", "fp32")}


def test_changes_reach_the_space_the_protocol_and_the_model() -> None:
    before = repr(factorvae_gamma.SWEEP)
    fields = {"gamma": "2,3.5", "steps": "70", "report_every": "7", "evaluate_every": "35", "vae.width": "32"}
    question = find_question("factorvae_gamma", "smoke", None, fields, "mine")
    assert question.id == SweepId("factorvae_gamma", "smoke", "mine")
    assert question.scale.draws() == [{"gamma": 2.0}, {"gamma": 3.5}]
    assert question.schedule == Schedule(70, 7, 35, factorvae_gamma.SWEEP.metrics)
    assert question.scale.fields == {**SMOKE.fields, "vae.width": "32"}
    assert repr(factorvae_gamma.SWEEP) == before, "the sweep itself is as it was"


@pytest.mark.parametrize(
    ("typed", "draws"),
    [
        ("6,10", [6, 10]),
        ("1e-3,.002", [0.001, 0.002]),
        ("mlp,conv", ["mlp", "conv"]),
        ("true,false", [True, False]),
        ("3, x", [3, "x"]),
    ],
)
def test_several_values_make_any_field_a_hyperparameter(typed: str, draws: list[object]) -> None:
    fields = {"a.b": typed, "gamma": "2,3"}
    question = find_question("factorvae_gamma", "smoke", None, fields, "mine")
    found = [(draw["gamma"], draw["a.b"]) for draw in question.scale.draws()]
    assert found == [(gamma, value) for gamma in (2.0, 3.0) for value in draws]
    assert all(type(value) is type(each) for (_, value), each in zip(found, draws, strict=False))
    assert "a.b" not in question.scale.fields


def test_a_field_goes_to_the_sweeps_whose_model_has_it(probe: Probe) -> None:
    fields = {"gamma": "2", "beta": "3,4", "vae.width": "8"}
    asked = [find_question(name, "smoke", (0,), fields, "x") for name in ("factorvae_gamma", "betavae_beta")]
    gamma, beta = plan(asked, probe, None)
    with pytest.raises(UnknownNameError, match="Did you mean 'beta'"):
        plan([find_question(each.id.name, "smoke", (0,), {"bet": "1"}, "x") for each in asked], probe, None)
    assert [draw.params for draw in gamma.draws] == [{"gamma": 2.0}]
    assert [draw.params for draw in beta.draws] == [{"beta": 3.0}, {"beta": 4.0}]
    assert {run.spec["fields"]["vae.width"] for each in (gamma, beta) for run in each.runs.values()} == {8}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("factorvae", "smoke"), ["factorvae", "Did you mean 'factorvae_gamma'?"]),
        (("factorvae_gamma", "smok"), ["smok", "Did you mean 'smoke'?", "laptop"]),
        (("factorvae_gamma", "smoke", None, {"gamma": "1"}), ["gamma", "--as"]),
        (("factorvae_gamma", "smoke", None, {"gamma": "big"}, "x"), ["gamma=big", "number"]),
        (("factorvae_gamma", "smoke", None, {"gamma": "1,,2"}, "x"), ["gamma=1,,2", "empty"]),
        (("factorvae_gamma", "smoke", None, {"gamma": "1,2,1"}, "x"), ["gamma=1,2,1", "twice"]),
        (("factorvae_gamma", "smoke", None, {"steps": "0"}, "x"), ["steps=0", "at least 1"]),
        (("factorvae_gamma", "smoke", None, {"steps": "1e3"}, "x"), ["steps=1e3", "steps=1000"]),
        (("factorvae_gamma", "smoke", None, {"report_every": "-5"}, "x"), ["report_every=-5"]),
        (("factorvae_gamma", "smoke", None, {}, "a/b"), ["a/b", "letters"]),
    ],
)
def test_a_wrong_word_is_refused_with_a_remedy(asked: tuple[Any, ...], words: list[str]) -> None:
    with pytest.raises(InputError) as raised:
        find_question(*asked)
    assert all(word in str(raised.value) for word in words)


def test_a_plan_holds_each_run_once_under_its_draw(planned: Planned) -> None:
    assert [draw.number for draw in planned.draws] == [0, 1]
    assert [draw.params for draw in planned.draws] == SMOKE.draws()
    members = [(draw, member) for draw in planned.draws for member in draw.members]
    assert len({member.key for _, member in members}) == len(members) == 4
    assert {member.key for _, member in members} == set(planned.runs)
    for draw, member in members:
        assert member.spec["fields"]["gamma"] == draw.params["gamma"]
        assert (member.spec["seed"], member.horizon_steps) == (member.seed, SMOKE.steps)


def test_planning_again_gives_the_same_runs_and_more_seeds_or_steps_leave_them_alone(
    planned: Planned, probe: Probe
) -> None:
    keys = [member.key for draw in planned.draws for member in draw.members]
    longer = {"steps": "1000", "evaluate_every": "500"}
    questions = [
        find_question("factorvae_gamma", "smoke"),
        find_question("factorvae_gamma", "smoke", (0, 1, 2)),
        find_question("factorvae_gamma", "smoke", None, longer, "longer"),
    ]
    again, more, steps = plan(questions, probe, None)
    assert again == planned
    assert [member.key for draw in steps.draws for member in draw.members] == keys
    assert [[member.key for member in draw.members[:2]] for draw in more.draws] == [keys[:2], keys[2:]]
    assert all(member.horizon_steps == 1000 for draw in steps.draws for member in draw.members)


def test_all_runs_wait_where_there_is_no_ledger_or_an_empty_one(planned: Planned, ledger: Ledger) -> None:
    waiting = planned.waiting(None)
    assert waiting == planned.waiting(ledger.records)
    planned.register(ledger)
    assert waiting == planned.waiting(ledger.records)
    assert [run.key for run in waiting] == [m.key for draw in planned.draws for m in draw.members]
    assert all((run.step, run.schedule) == (0, planned.question.schedule) for run in waiting)
    assert all(run.block_s == SMOKE.block_s for run in waiting)
    assert all(planned.runs[run.key].static_key == run.static_key for run in waiting)


def test_done_and_diverged_runs_wait_no_more_failed_and_begun_ones_do(
    planned: Planned, ledger: Ledger
) -> None:
    planned.register(ledger)
    done, diverged, failed, begun = [member.key for draw in planned.draws for member in draw.members]
    commit(ledger, done, "done", SMOKE.steps, SMOKE.steps)
    commit(ledger, diverged, "diverged", 17, SMOKE.steps)
    commit(ledger, begun, "running", 50, SMOKE.steps)
    number = ledger.begin_attempt([failed])
    ledger.end_attempt(number, "failed", "error")
    ledger.record_failure(failed, number, "error", "error")
    assert [(run.key, run.step) for run in planned.waiting(ledger.records)] == [(failed, 0), (begun, 50)]


def test_a_run_that_is_done_waits_again_for_a_longer_question(
    planned: Planned, ledger: Ledger, probe: Probe
) -> None:
    planned.register(ledger)
    key = planned.draws[0].members[0].key
    commit(ledger, key, "done", SMOKE.steps, SMOKE.steps)
    fields = {"steps": f"{SMOKE.steps + 1}"}
    (longer,) = plan(
        [find_question("factorvae_gamma", "smoke", (0,), fields, "longer")], probe, ledger.records
    )
    first, _ = longer.waiting(ledger.records)
    assert (first.key, first.step) == (key, SMOKE.steps)


def test_registering_twice_adds_nothing(planned: Planned, ledger: Ledger) -> None:
    planned.register(ledger)
    before = ledger.records.members(planned.question.id)
    planned.register(ledger)
    assert ledger.records.members(planned.question.id) == before
    assert len(before) == 4


def test_seeds_are_added_and_never_removed(planned: Planned, ledger: Ledger, probe: Probe) -> None:
    def seeds(question: Question) -> tuple[int, ...]:
        (planned,) = plan([question], probe, ledger.records)
        return planned.question.seeds

    fewer = find_question("factorvae_gamma", "smoke", seeds=(7,))
    assert seeds(fewer) == (7,)
    planned.register(ledger)
    assert seeds(fewer) == (0, 1, 7)
    assert seeds(find_question("factorvae_gamma", "smoke", (7,), {"gamma": "1"}, "other")) == (7,)


def test_another_question_under_a_known_name_is_refused_when_it_is_planned(
    ledger: Ledger, probe: Probe, tmp_path: Path
) -> None:
    def ask(fields: Mapping[str, str] | None = None, data: str | None = None) -> list[Planned]:
        return plan([find_question("factorvae_gamma", "smoke", (0,), fields, "mine", data)], probe, records)

    with contextlib.closing(Records.open(ledger.path)) as records:
        (planned,) = ask({"steps": "200"})
        planned.register(ledger)
        before = ledger.records.members(planned.question.id)
        with pytest.raises(InputError, match=r"already exists in this home with data=sprites, not "):
            ask({"steps": "200"}, str(own_images(tmp_path, factors=np.arange(24)[:, None] // 4)))
        with pytest.raises(
            InputError,
            match=r"steps=200, not 100\.\nTo continue it, leave out .* --set steps=200; for a new variant",
        ):
            ask({"steps": "100"})
        (more,) = ask({"steps": "300", "gamma": "1,60,7"})
        assert len(more.waiting(records)) == 3
        assert ledger.records.members(planned.question.id) == before
        assert verify.check(ledger.path, ledger.storage) == []


def test_a_horizon_that_was_passed_without_an_evaluation_is_refused_when_it_is_planned(
    planned: Planned, ledger: Ledger, probe: Probe
) -> None:
    planned.register(ledger)
    commit(ledger, planned.draws[0].members[0].key, "done", SMOKE.steps, SMOKE.steps)
    shorter = find_question("factorvae_gamma", "smoke", None, {"steps": "150"}, "shorter")
    with pytest.raises(InputError, match="seed 0 was trained past step 150 and has no recon_error there"):
        plan([shorter], probe, ledger.records)


def own_images(folder: Path, **arrays: np.ndarray) -> Path:
    path = folder / "images.npz"
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)
    np.savez(path, allow_pickle=False, images=images, **arrays)
    return path


def test_a_question_is_asked_of_images_of_ones_own_by_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: Probe
) -> None:
    path = own_images(tmp_path, factors=np.arange(24)[:, None] // 4)
    monkeypatch.chdir(tmp_path)
    question = find_question("factorvae_gamma", "smoke", None, {}, "mine", "./images.npz")
    assert question.scale.data == str(path)
    (planned,) = plan([question], probe, None)
    assert planned.num_factors == 1
    assert planned.question == question
    recipes = {run.spec["recipe"] for run in planned.runs.values()}
    assert len(recipes) == 1
    assert recipes.pop().startswith("own images (")


def test_what_images_are_too_few_for_is_said_once_for_each_network(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = own_images(tmp_path)
    with Probe() as probe:  # started here, so that what it prints is seen
        for num_codes, said in (
            ("6", "Scores on 24 images with 6 codes"),
            ("24", "gaussian_tc is inf on 24 images"),
        ):
            question = find_question(
                "factorvae_gamma", "smoke", None, {"vae.latent_dim": num_codes}, "mine", str(path)
            )
            plan([question], probe, None)
            assert capfd.readouterr().err.count(f"Note: {said}") == 1


def test_images_without_ground_truth_are_asked_what_needs_none(
    tmp_path: Path, probe: Probe, ledger: Ledger
) -> None:
    path = own_images(tmp_path)
    (planned,) = plan([find_question("infowgan_gp", "smoke", None, {}, "mine", str(path))], probe, None)
    sweep = planned.question.sweep
    assert sweep.objectives == ("recon_mse", "gaussian_tc")
    assert sweep.metrics == ("recon_mse", "gaussian_tc", "active_dims")
    assert planned.question.schedule.metrics == sweep.metrics
    planned.register(ledger)
    spec = ledger.records.spec(planned.question.id)
    assert (spec["num_factors"], spec["objectives"]) == (0, ["recon_mse", "gaussian_tc"])
    words = labels.words(ledger.records, planned.question.id)
    assert words["objectives"] == ("recon_mse", "gaussian_tc")
    assert words["note"] == infowgan_gp.SWEEP.scales["smoke"].note


def test_what_is_said_of_the_choice_of_data_goes_where_other_data_are_chosen() -> None:
    scale = betavae_beta.SWEEP.scales["laptop"]
    assert scale.notes("sprites") == scale.data_note != ""
    assert scale.notes("dsprites") == ""
