import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainables import __main__ as program
from trainables import blocks, committing, plugins, scoring
from trainables.layout import Layout, block_of

pytestmark = pytest.mark.usefixtures("arithmetic")

ROOT = Path(__file__).parents[2]
NETWORK = ["--set", "vae.network=mlp", "--set", "vae.width=37", "--set", "vae.latent_dim=3"]
BETA = ["beta_vae", "--data", "sprites", *NETWORK]
FACTOR = [
    *("factor_vae", "--data", "sprites", *NETWORK, "--set", "batch_size=33", "--set", "gamma=10"),
    *(
        "--set",
        "discriminator.width=50",
        "--set",
        "discriminator.depth=2",
        "--set",
        "adam.learning_rate=1e-3",
    ),
]


def lines_of(text):
    """Strict JSON, without NaN."""
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str]):
    """Run the command line in this process; returns exit code, the lines of its output, and its errors."""

    def run(*arguments):
        code = program.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, lines_of(captured.out), captured.err

    return run


@pytest.fixture
def shas(main):
    """Run the command line; returns the hash of the parameters of each run, by seed."""

    def run(*arguments):
        code, lines, _ = main(*arguments)
        assert code == 0
        return {line["seed"]: line["params_sha256"] for line in lines if "seed" in line}

    return run


def test_a_pack_is_trained_reported_and_summed_up(main, small_run) -> None:
    code, lines, errors = main(
        *(*FACTOR, "--seeds", "0-1,7", "--steps", 25, "--report-every", 10, "--evaluate-every", 20)
    )
    assert (code, errors) == (0, "")
    reports, summaries = lines[:-3], lines[-3:]
    assert [summary["seed"] for summary in summaries] == [0, 1, 7]
    keys = [summary["run_key"] for summary in summaries]
    fields = {"vae.width": 37, "vae.latent_dim": 3, "batch_size": 33, "gamma": 10}
    fields |= {"discriminator.width": 50, "discriminator.depth": 2, "discriminator.adam.learning_rate": 1e-4}
    assert keys == [small_run("factor_vae", seed, fields).key for seed in (0, 1, 7)]
    assert [(line["run_key"], line["step"]) for line in reports] == [
        (key, step) for step in (10, 20, 25) for key in keys
    ]
    assert set(reports[0]) == {
        "run_key",
        "step",
        *(f"train/{name}" for name in ("loss", "recon", "kl", "tc")),
    }
    assert {"train/loss", "factor_vae_score", "kl/dim_2"} <= set(reports[3])
    for summary, last in zip(summaries, reports[-3:], strict=True):
        assert (summary["status"], summary["step"]) == ("done", 25)
        assert summary["num_params"]["discriminator"] == 3 * 50 + 50 + 50 * 50 + 50 + 50 * 2 + 2
        assert summary["run_steps_per_s"] > 0
        assert summary["metrics"] == {name: last[name] for name in summary["metrics"]}
        assert set(scoring.cheap_metrics(3)) <= set(summary["metrics"])
    assert len({summary["params_sha256"] for summary in summaries}) == 3


def test_the_module_runs_as_a_program_and_gives_the_same_bits(shas) -> None:
    arguments = [*BETA, "--seeds", "3", "--steps", "5"]
    ran = subprocess.run(
        [sys.executable, "-m", "trainables", *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "2"},
    )
    assert ran.stderr == ""
    (summary,) = lines_of(ran.stdout)[1:]
    assert {3: summary["params_sha256"]} == shas(*arguments)


def test_a_run_that_diverges_is_named_and_fails_the_command(main) -> None:
    code, lines, _ = main(*BETA, "--set", "beta=3e38", "--steps", 9)
    assert code == 1
    (summary,) = lines
    assert (summary["status"], summary["step"]) == ("diverged", 0)


# Going on.


def test_what_is_resumed_equals_what_was_never_stopped(shas, tmp_path: Path) -> None:
    pack = [*FACTOR, "--seeds", "0,4"]
    undisturbed = shas(*pack, "--steps", 40)
    shas(*pack, "--steps", 13, "--out", tmp_path)
    assert shas(*pack, "--steps", 29, "--resume", tmp_path) != undisturbed
    assert shas(*pack, "--steps", 40, "--resume", tmp_path) == undisturbed
    assert [block_of(path) for path in Layout(tmp_path).manifests()] == [(1, 0), (2, 0), (3, 0)]
    start_steps = [blocks.read_manifest(path).start_step for path in Layout(tmp_path).manifests()]
    assert start_steps == [0, 13, 29]


def test_a_run_resumed_at_its_horizon_is_summed_up_and_written_no_second_time(main, tmp_path: Path) -> None:
    arguments = [*FACTOR, "--steps", 9]
    _, first, _ = main(*arguments, "--out", tmp_path)
    code, lines, _ = main(*arguments, "--resume", tmp_path)
    assert (code, len(lines), len(Layout(tmp_path).manifests())) == (0, 1, 1)
    assert lines[0]["params_sha256"] == first[-1]["params_sha256"]


@pytest.fixture
def block_and_state_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--state-every 0`, however slow the disk is."""
    monkeypatch.setattr(program, "BLOCK_S", 0.0)
    monkeypatch.setattr(committing, "WORK_PER_WRITE", 0.0)
    monkeypatch.setattr(committing, "STATE_SHARE", 1e9)


@pytest.fixture
def stopped(block_and_state_a_step, shas, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The storage of a pack of seeds 0 and 4, with a block a step, that was killed on the way to step 40."""
    words = ["--steps", 40, "--report-every", 9, "--state-every", 0]
    with monkeypatch.context() as unpruned:  # the states of step 30 would be gone by step 40
        unpruned.setattr(blocks, "prune", lambda *_, **__: None)
        shas(*FACTOR, "--seeds", "0,4", *words, "--out", tmp_path)
    for path in Layout(tmp_path).manifests():
        if blocks.read_manifest(path).end_step > 30:
            path.unlink()
    assert len(Layout(tmp_path).manifests()) == 30
    return tmp_path


def test_a_killed_pack_goes_on_exactly_and_some_of_its_runs_may_go_on_alone(shas, stopped) -> None:
    undisturbed = shas(*FACTOR, "--seeds", "0,4", "--steps", 40)
    alone = shutil.copytree(stopped, stopped / "copy")
    assert shas(*FACTOR, "--seeds", "0,4", "--steps", 40, "--resume", stopped) == undisturbed
    assert shas(*FACTOR, "--seeds", "4", "--steps", 40, "--resume", alone) == {4: undisturbed[4]}
    assert blocks.read_manifest(Layout(alone).manifests(2)[0]).start_step == 30


@pytest.mark.parametrize("damaged", ["slices", "json"])
def test_a_damaged_block_is_passed_over_for_an_older_one(main, stopped, damaged: str) -> None:
    path = Layout(stopped).manifests()[-1].with_suffix(f".{damaged}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    code, lines, errors = main(*FACTOR, "--seeds", "0,4", "--steps", 40, "--resume", stopped)
    assert code == 0
    assert path.name in errors
    assert "Falling back to an older block." in errors
    assert blocks.read_manifest(Layout(stopped).manifests(2)[0]).start_step == 29
    _, undisturbed, _ = main(*FACTOR, "--seeds", "0,4", "--steps", 40)
    assert [line["params_sha256"] for line in lines[-2:]] == [
        line["params_sha256"] for line in undisturbed[-2:]
    ]


def test_the_storage_of_a_sweep_with_its_records_of_attempts_can_be_resumed_from(shas, stopped) -> None:
    # A ledger keeps what it knows of an attempt beside the attempt's folder.
    (stopped / "attempts" / "00000001.json").write_text("{}")
    assert set(shas(*FACTOR, "--seeds", "0,4", "--steps", 40, "--resume", stopped)) == {0, 4}


def test_states_that_newer_ones_replace_are_deleted(block_and_state_a_step, main, tmp_path: Path) -> None:
    main(*BETA, "--steps", 9, "--state-every", 0, "--out", tmp_path)
    assert len(Layout(tmp_path).manifests()) == 9
    assert [path.stem for path in tmp_path.rglob("*.slices")] == ["block-000008"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_all_that_a_resume_needs(shas, tmp_path: Path, number) -> None:
    words = [*FACTOR, "--seeds", "0,4", "--report-every", "50"]
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPABLE, *words, "--steps", "1000000", "--out", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()  # of the first block
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    (line,) = err.splitlines()
    step = int(re.fullmatch(rf"Stopped at step (\d+)\. .*--resume {tmp_path} .*", line)[1])
    assert blocks.read_manifest(Layout(tmp_path).manifests()[-1]).end_step == step
    assert not list(tmp_path.rglob("*.stop"))
    horizon = step + 20
    resumed = shas(*words, "--steps", horizon, "--resume", tmp_path)
    assert blocks.read_manifest(Layout(tmp_path).manifests(2)[0]).start_step == step
    assert resumed == shas(*words, "--steps", horizon)


STOPPABLE = """
import sys
from trainables import __main__ as program
program.BLOCK_S = 0.5
sys.exit(program.main(sys.argv[1:]))
"""


def test_two_commands_with_one_storage_keep_apart(tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "trainables", *BETA, "--steps", "9", "--out", str(tmp_path)]
    both = [
        subprocess.Popen([*arguments, "--seeds", seed], cwd=ROOT, stdout=subprocess.PIPE) for seed in "01"
    ]
    for process in both:
        process.communicate()
    assert [process.returncode for process in both] == [0, 0]
    found = [blocks.read_manifest(path) for path in Layout(tmp_path).manifests()]
    assert sorted(run.seed for manifest in found for run in manifest.runs) == [0, 1]
    assert len({manifest.attempt for manifest in found}) == 2


def test_a_run_that_is_about_to_diverge_prints_strict_json(main) -> None:
    """Its KL overflows while its loss is still finite."""
    code, lines, _ = main(
        *("beta_vae", "--data", "sprites", "--set", "vae.network=mlp", "--set", "vae.latent_dim=3"),
        *("--seeds", "0-3", "--set", "adam.learning_rate=0.3"),
        *("--steps", 5, "--report-every", 1, "--evaluate-every", 1),
    )
    assert code in (0, 1)
    assert any(line.get("kl", 0.0) is None for line in lines)


def test_other_settings_find_nothing_to_resume(main, stopped) -> None:
    for other in (["--seeds", "0,5"], ["--seeds", "0", "--set", "adam.beta1=0.8"]):
        code, lines, errors = main(*FACTOR, "--steps", 40, "--resume", stopped, *other)
        assert (code, lines) == (2, [])
        assert errors.startswith(f"--resume {stopped}: these runs have no saved states at a common step")


# What a person got wrong.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["beta-vae", "--data", "sprites"],
            "Unknown model 'beta-vae'. Did you mean 'beta_vae'?\nValid: beta_vae, f",
        ),
        (["_networks", "--data", "sprites"], "Unknown model '_networks'."),
        (
            ["beta_vae", "--data", "dsprite"],
            "Unknown data set 'dsprite'. Did you mean 'dsprites'?\nValid: celeba, ",
        ),
        ([*BETA, "--set", "beta=3", "--set", "beta=4"], "'beta=4': beta is set twice.\nSet it once."),
        ([*BETA, "--set", "betta=3"], "Unknown field 'betta'. Did you mean 'beta'?\nValid: adam.beta1, "),
        ([*BETA, "--set", "gamma=3"], "Unknown field 'gamma'."),
        ([*BETA, "--set", "beta"], "'beta' is not an assignment.\nUse field=value"),
        ([*BETA, "--set", "beta=high"], "beta=high: expected a number, for example beta=0.5."),
        ([*BETA, "--set", "beta=-2"], "beta=-2: beta must be at least 0"),
        ([*BETA, "--set", "beta=inf"], "beta=inf"),
        ([*BETA[:3], "--set", "vae.latent_dim=2.5"], "vae.latent_dim=2.5: expected a whole number"),
        ([*BETA[:3], "--set", "vae.network=cnov"], "'cnov'. Did you mean 'conv'?\nValid: conv, mlp."),
        (
            [*BETA[:3], "--set", "vae.network=conv"],
            "needs 64 x 64 images, but these are 16 x 16.\nSet vae.network=mlp.",
        ),
        ([*BETA, "--seeds", "1-"], "Seeds '1-': '1-' is not a seed or a range.\nUse for example 0-9"),
        ([*BETA, "--seeds", "4294967296"], "not an ascending range within 0 .. 4294967295"),
        ([*BETA, "--steps", "0"], "at least 1"),
        ([*BETA, "--report-every", "0"], "at least 1"),
        ([*BETA, "--evaluate-every", "0"], "at least 1"),
        ([*BETA, "--threads", "0"], "threads"),
        ([*BETA, "--precision", "tf32"], "--precision tf32: not available on a CPU."),
        ([*BETA, "--out", "/proc/nope"], "/proc/nope"),
        ([*BETA, "--resume", "nowhere"], "--resume nowhere: these runs have no saved states"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_wrong_input_ends_with_2_and_says_what_is_valid(main, arguments, said: str) -> None:
    code, lines, errors = main(*arguments[:1], "--steps", 3, *arguments[1:])
    assert (code, lines) == (2, [])
    assert said in errors
    assert 1 <= len(errors.splitlines()) <= 3


def test_a_file_in_the_place_of_the_storage_is_refused(main, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    code, lines, errors = main(*BETA, "--steps", 3, "--out", tmp_path / "taken")
    assert (code, lines) == (2, [])
    assert "taken" in errors


@pytest.mark.parametrize(
    "arguments",
    [[], ["beta_vae"], [*BETA], [*BETA, "--steps", "many"], [*BETA, "--steps", "3", "--precision", "fp8"]],
)
def test_a_command_line_that_cannot_be_parsed_shows_the_usage(
    capsys: pytest.CaptureFixture[str], arguments
) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.main(arguments)
    assert "usage: python -m trainables" in capsys.readouterr().err


def test_the_help_names_the_models_and_data_sets_found(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        program.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for package in ("trainables.models", "trainables.data"):
        assert ", ".join(plugins.names(package)) in text
