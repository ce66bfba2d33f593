"""What a label stands for in a home: naming it again recalls it, another meaning is refused."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from search_spaces import factorvae_gamma
from sweeper.analysis import results
from sweeper.ledger.reader import Records
from sweeper.ledger.rows import SweepId
from sweeper.ledger.writer import Draw, Ledger, Member
from sweeper.machines.probe import Probe
from sweeper.scheduling.plan import Planned, find_question, plan
from tests.specs import run_spec, sweep_spec
from trainables.errors import InputError

Ask = Callable[..., Planned]
FIRST = {"vae.latent_dim": "10", "gamma": "5,50", "evaluate_every": "50", "steps": "100"}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        yield ledger


@pytest.fixture
def ask(probe: Probe, ledger: Ledger) -> Ask:
    """Plans the label `lat10` in a home where it stands for `FIRST`."""

    def asked(fields: Mapping[str, str] | None = None, label: str = "lat10", **more: str | None) -> Planned:
        question = find_question("factorvae_gamma", "smoke", None, fields, label, more.get("data"))
        (planned,) = plan([question], probe, ledger.records)
        return planned

    asked(FIRST).register(ledger)
    return asked


def test_a_label_that_is_named_again_stands_for_what_it_stood_for(ask: Ask) -> None:
    first, again = ask(FIRST), ask()
    assert again.question.scale == first.question.scale
    assert [member.key for member in again.members] == [member.key for member in first.members]
    assert again.draws == first.draws
    assert again.spec == first.spec


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"vae.latent_dim": "3"},
            "vae.latent_dim=10, not 3.\nTo continue it, leave out --set or use --set vae.latent_dim=10; for",
        ),
        (
            {"gamma": "7"},
            "gamma=5,50, not 7.\nTo continue it, leave out --set or use --set gamma=5,50, to which",
        ),
        ({"gamma": "5"}, "gamma=5,50, not 5.\nTo continue it, leave out --set"),
        ({"vae.latent_dim": "3", "gamma": "7"}, "gamma=5,50, not 7"),
        (
            {"adam.beta1": "0.5"},
            "adam.beta1=0.9, not 0.5.\nTo continue it, leave out --set or use --set adam.beta1=0.9; for",
        ),
        (
            {"precision": "bf16"},
            "precision=fp32, not bf16.\nTo continue it, leave out --set or use --set precision=fp32; for",
        ),
        (
            {"steps": "50"},
            "steps=100, not 50.\nTo continue it, leave out --set or use --set steps=100; for",
        ),
    ],
)
def test_another_meaning_of_a_label_is_refused_with_the_difference(
    fields: dict[str, str], said: str, ask: Ask, ledger: Ledger
) -> None:
    before = ledger.records.members(SweepId("factorvae_gamma", "smoke", "lat10"))
    with pytest.raises(InputError) as raised:
        ask(fields)
    assert said in str(raised.value)
    assert str(raised.value).endswith("another label with --as.")
    assert ledger.records.members(SweepId("factorvae_gamma", "smoke", "lat10")) == before


def test_the_remedy_names_values_with_all_their_digits(ask: Ask, ledger: Ledger) -> None:
    ask({"gamma": "5.1234567"}, label="digits").register(ledger)
    with pytest.raises(InputError, match=r"use --set gamma=5\.1234567, to which"):
        ask({"gamma": "7"}, label="digits")
    assert len(ask({"gamma": "5.1234567,7"}, label="digits").draws) == 2


def test_other_data_under_a_label_is_refused(ask: Ask) -> None:
    with pytest.raises(
        InputError,
        match=r"data=sprites, not dsprites\.\nTo continue it, .* --set vae\.network=mlp --data sprites; for",
    ):
        ask({"vae.network": "conv"}, data="dsprites")


@pytest.mark.parametrize(("data", "network"), [("sprites", "mlp"), ("dsprites", "conv")])
def test_a_network_that_fits_the_images_is_planned_and_kept_by_its_name(
    ask: Ask, ledger: Ledger, data: str, network: str
) -> None:
    fitting = ask({"vae.network": "auto"}, label="fits", data=data)
    fitting.register(ledger)
    named = ask({"vae.network": network}, label="named", data=data)
    assert [member.key for member in fitting.members] == [member.key for member in named.members]
    kept = ledger.records.members(SweepId("factorvae_gamma", "smoke", "fits"))
    assert {member.spec["fields"]["vae.network"] for member in kept} == {network}
    for again in ({}, {"vae.network": network}, {"vae.network": "auto"}):
        assert ask(again, label="fits").members == fitting.members


def test_a_label_keeps_how_its_images_are_read(
    ask: Ask, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPER_DATA", str(tmp_path / "data"))
    levels = np.random.default_rng(0).integers(0, 256, (80, 8, 8), dtype=np.uint8)
    arrays: dict[str, np.ndarray] = {"a b": levels, "other": levels[::-1], "y": np.arange(80) // 20}
    np.savez(tmp_path / "mine.npz", allow_pickle=False, **arrays)
    data = f"{tmp_path}/mine.npz?images=a%20b&factors=y"
    ask(label="mine", data=data).register(ledger)
    assert ask(label="mine").question.scale.data == data
    with pytest.raises(InputError) as refusal:
        ask(label="mine", data=f"{tmp_path}/mine.npz?images=other")
    assert f"or use --data {tmp_path}/mine.npz --images 'a b' --factors y; for a new" in str(refusal.value)


def test_more_values_seeds_and_steps_extend_a_label(ask: Ask, ledger: Ledger) -> None:
    more = ask({"gamma": "2,5,50", "steps": "300"})
    assert [draw.params["gamma"] for draw in more.draws] == [2.0, 5.0, 50.0]
    assert {member.horizon_steps for member in more.members} == {300}
    assert all(run.spec["fields"]["vae.latent_dim"] == 10 for run in more.runs.values())
    more.register(ledger)
    assert {draw.params["gamma"] for draw in ask().draws} == {2.0, 5.0, 50.0}
    assert ask().question.scale.steps == 300


def test_a_sweep_without_a_label_stands_for_its_file(ask: Ask) -> None:
    plain = ask(label="")
    assert plain.question.scale == factorvae_gamma.SWEEP.scales["smoke"]


def test_a_field_that_varies_between_rows_is_a_column(tmp_path: Path) -> None:
    """Homes of earlier versions may have several models under one label; and several labels are shown side by side."""

    def draw(number: int, gamma: float, latents: int) -> Draw:
        fields = {"gamma": gamma, "vae.latent_dim": latents, "vae.width": 64}
        key = f"{gamma} {latents}"
        return Draw(number, {"gamma": gamma}, (Member(key, 0, 40, run_spec("factor_vae", fields=fields)),))

    one, two = (SweepId("factorvae_gamma", "smoke", label) for label in ("one", "two"))
    with Ledger(tmp_path / "ledger.db", tmp_path / "storage") as ledger:
        ledger.register_sweep(one, sweep_spec(), [draw(0, 5.0, 10), draw(1, 7.0, 3)])
        ledger.register_sweep(two, sweep_spec(), [draw(0, 9.0, 4)])
    records = Records.open(tmp_path / "ledger.db")
    try:
        alone = results.run_table(records, one)
        assert results.hyperparameters(alone) == ["gamma", "vae.latent_dim"]
        assert results.hyperparameters(results.run_table(records, two)) == ["gamma"]
        both = results.stack(list(results.run_tables(records, [one, two]).values()))
        found = both[["gamma", "vae.latent_dim"]].drop_duplicates().to_numpy().tolist()
        assert found == [[5.0, 10], [7.0, 3], [9.0, 4]]
    finally:
        records.close()
