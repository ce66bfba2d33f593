"""A real child process that has torch; it is started once and asked many things."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.machines.probe import Measured, Probe, ProbeError
from trainables.config import RunSpec, Value, spec_of
from trainables.errors import InputError

SMALL: dict[str, Value] = {"vae.network": "mlp", "vae.latent_dim": 6, "vae.width": 64}
RUN = RunSpec("factor_vae", "sprites", SMALL | {"gamma": 10.0}, 0)


@pytest.fixture(scope="module")
def probe() -> Iterator[Probe]:
    with Probe() as probe:
        yield probe


def with_fields(seed: int = 0, /, **fields: Value) -> RunSpec:
    return RunSpec("factor_vae", "sprites", SMALL | fields, seed)


def test_a_specification_comes_back_whole_and_names_the_same_run_again(probe: Probe) -> None:
    (found,) = probe.resolve([RUN])
    assert found.spec["fields"].items() >= (SMALL | {"gamma": 10.0}).items()
    assert {"vae.latent_dim", "adam.learning_rate", "discriminator.depth"} <= set(found.spec["fields"])
    assert probe.resolve([spec_of(found.spec)]) == [found]
    assert len(found.key) == 64


def test_answers_are_in_the_order_of_the_questions(probe: Probe) -> None:
    runs = [with_fields(seed, gamma=gamma) for gamma in (1.0, 10.0) for seed in range(3)]
    found = probe.resolve(runs)
    assert [(each.spec["fields"]["gamma"], each.spec["seed"]) for each in found] == [
        (run.fields["gamma"], run.seed) for run in runs
    ]
    assert len({each.key for each in found}) == len(runs)
    assert len({each.static_key for each in found}) == 1, "seeds and gamma may differ inside a pack"
    assert probe.resolve([]) == []


def test_what_is_typed_as_text_names_the_same_run(probe: Probe) -> None:
    typed, meant = probe.resolve([with_fields(**{"gamma": "10", "vae.width": "64"}), with_fields(gamma=10.0)])
    assert typed == meant


def test_another_architecture_trains_in_another_pack(probe: Probe) -> None:
    narrow, wide = probe.resolve([with_fields(), with_fields(**{"vae.width": 128})])
    assert narrow.static_key != wide.static_key


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (with_fields(gama=1.0), ["gama", "Did you mean 'gamma'?"]),
        (with_fields(gamma="much"), ["gamma=much", "a number"]),
        (with_fields(gamma="nan"), ["gamma=nan"]),
        (with_fields(gamma=float("inf")), ["gamma=inf"]),
        (with_fields(**{"vae.network": "tree"}), ["tree", "mlp"]),
        (RunSpec("factor_va", "sprites", {}, 0), ["factor_va", "Did you mean 'factor_vae'?"]),
        (RunSpec("factor_vae", "sprits", {}, 0), ["sprits", "Did you mean 'sprites'?"]),
        (with_fields(2**32), [str(2**32)]),
    ],
)
def test_a_wrong_run_is_refused_in_words_and_the_next_is_answered(
    probe: Probe, run: RunSpec, words: list[str]
) -> None:
    with pytest.raises(InputError) as raised:
        probe.resolve([RUN, run])
    assert all(word in str(raised.value) for word in words)
    assert len(str(raised.value).splitlines()) <= 3
    assert len(probe.resolve([RUN])) == 1


def test_a_pack_is_measured(probe: Probe) -> None:
    alone = probe.measure(RUN, num_runs=1, gpus=0.0, threads=1)
    assert isinstance(alone, Measured)
    assert 0 < alone.step_time_s < 1
    assert 0 <= alone.memory_gib < 4
    assert alone.room_gib == 0, "a CPU sets no limit to a pack"


def test_many_seeds_are_resolved_once_and_have_the_keys_that_each_has_alone(probe: Probe) -> None:
    runs = [with_fields(seed, gamma=gamma) for seed in range(1000) for gamma in (1.0, 10.0)]
    found = probe.resolve(runs)
    assert [(each.spec["seed"], each.spec["fields"]["gamma"]) for each in found] == [
        (run.seed, run.fields["gamma"]) for run in runs
    ]
    assert len({each.key for each in found}) == len(runs)
    assert probe.resolve(runs[-1:]) == found[-1:]


@pytest.mark.parametrize("field", ["batch_size", "vae.width"])
def test_a_pack_that_memory_cannot_hold_is_refused_before_it_is_built(probe: Probe, field: str) -> None:
    with pytest.raises(InputError, match=f"{field}=1000000000: .*would need"):
        probe.measure(with_fields(**{field: 10**9}), num_runs=8, gpus=0.0, threads=1)


def test_a_process_that_is_killed_is_a_fault_of_the_machine() -> None:
    with Probe() as probe:
        probe._process.kill()
        with pytest.raises(ProbeError, match="was killed, perhaps by the kernel because memory ran out"):
            probe.resolve([RUN])


@pytest.mark.parametrize(
    ("answer", "said"),
    [("", "ended with exit code 1"), ('{"machine": "no GPU"}\n', "no GPU"), ('{"keys"', "ended")],
)
def test_a_gpu_that_torch_cannot_use_and_half_an_answer_are_faults_of_the_machine(
    answer: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\nimport sys\nsys.stdout.write({answer!r})\nsys.exit(1)\n")
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    with Probe() as probe, pytest.raises(ProbeError, match=said):
        probe.resolve([RUN])


def test_leaving_ends_the_process() -> None:
    with Probe() as probe:
        process = probe._process
        assert process.poll() is None
    assert process.poll() is not None
    assert process.stdin is not None
    assert process.stdin.closed
    assert process.stdout is not None
    assert process.stdout.closed
