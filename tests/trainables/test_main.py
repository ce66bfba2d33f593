import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from trainables import __main__ as program
from trainables import blocks, command_line, committing, config, contracts, plugins, resuming, scoring
from trainables.config import Value
from trainables.engine import ResolvedRun
from trainables.errors import InputError
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


CHEAP = scoring.cheap_metrics

Line: TypeAlias = dict[str, Any]
Main = Callable[..., tuple[int, list[Line], str]]
Shas = Callable[..., dict[int, str]]


def lines_of(text: str) -> list[Line]:
    """Strict JSON, without NaN."""
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


@pytest.fixture(autouse=True)
def few_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the metric that takes as long as all others."""
    monkeypatch.setattr(
        scoring, "cheap_metrics", lambda num: tuple(n for n in CHEAP(num) if n != "factor_vae_score_heldout")
    )


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str]) -> Main:
    """Run the command line in this process; returns exit code, the lines of its output, and its errors."""

    def run(*arguments: object) -> tuple[int, list[Line], str]:
        code = program.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, lines_of(captured.out), captured.err

    return run


@pytest.fixture
def shas(main: Main) -> Shas:
    """Run the command line; returns the hash of the parameters of each run, by seed."""

    def run(*arguments: object) -> dict[int, str]:
        code, lines, _ = main(*arguments)
        assert code == 0
        return {line["seed"]: line["params_sha256"] for line in lines if "seed" in line}

    return run


def test_the_network_fits_the_images_unless_it_is_set(main: Main, shas: Shas, tmp_path: Path) -> None:
    small = ["factor_vae", "--data", "sprites", "--set", "discriminator.width=8", "--set", "vae.width=8"]
    mlp = ["--set", "vae.network=mlp"]
    _, found, _ = main(*small, "--steps", 3, "--out", tmp_path)
    _, expected, _ = main(*small, *mlp, "--steps", 3)
    same = ("run_key", "params_sha256")
    assert [found[-1][name] for name in same] == [expected[-1][name] for name in same]
    assert shas(*small, *mlp, "--steps", 5, "--resume", tmp_path) == shas(*small, "--steps", 5)


def test_a_pack_is_trained_reported_and_summed_up(
    main: Main, small_run: Callable[..., ResolvedRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "cheap_metrics", CHEAP)
    code, lines, errors = main(
        *(*FACTOR, "--seeds", "0-1,7", "--steps", 25, "--report-every", 10, "--evaluate-every", 20)
    )
    assert (code, errors) == (0, "")
    reports, summaries = lines[:-3], lines[-3:]
    assert [summary["seed"] for summary in summaries] == [0, 1, 7]
    keys = [summary["run_key"] for summary in summaries]
    fields: dict[str, Value] = {"vae.width": 37, "vae.latent_dim": 3, "batch_size": 33, "gamma": 10}
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
        assert set(CHEAP(3)) <= set(summary["metrics"])
    assert len({summary["params_sha256"] for summary in summaries}) == 3


def test_the_module_runs_as_a_program_and_gives_the_same_bits(shas: Shas) -> None:
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


def test_a_run_that_diverges_is_named_and_fails_the_command(main: Main) -> None:
    code, lines, _ = main(*BETA, "--set", "beta=3e38", "--steps", 9)
    assert code == 1
    (summary,) = lines
    assert (summary["status"], summary["step"]) == ("diverged", 0)


# Going on.


def test_what_is_resumed_equals_what_was_never_stopped(shas: Shas, tmp_path: Path) -> None:
    pack = [*FACTOR, "--seeds", "0,4"]
    undisturbed = shas(*pack, "--steps", 40)
    shas(*pack, "--steps", 13, "--out", tmp_path)
    assert shas(*pack, "--steps", 29, "--resume", tmp_path) != undisturbed
    assert shas(*pack, "--steps", 40, "--resume", tmp_path) == undisturbed
    assert [block_of(path) for path in Layout(tmp_path).manifests()] == [(1, 0), (2, 0), (3, 0)]
    start_steps = [blocks.read_manifest(path).start_step for path in Layout(tmp_path).manifests()]
    assert start_steps == [0, 13, 29]


def test_a_run_resumed_at_its_horizon_is_summed_up_and_written_no_second_time(
    main: Main, tmp_path: Path
) -> None:
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
def stopped(
    block_and_state_a_step: None, shas: Shas, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """The storage of a pack of seeds 0 and 4, with a block a step, that was killed on the way to step 14."""
    words = ["--steps", 14, "--report-every", 4, "--state-every", 0]
    with monkeypatch.context() as unpruned:  # the states of step 10 would be gone by step 14
        unpruned.setattr(blocks, "prune", lambda *_, **__: None)
        shas(*FACTOR, "--seeds", "0,4", *words, "--out", tmp_path)
    for path in Layout(tmp_path).manifests():
        if blocks.read_manifest(path).end_step > 10:
            path.unlink()
    assert len(Layout(tmp_path).manifests()) == 10
    return tmp_path


def test_a_killed_pack_goes_on_exactly_and_some_of_its_runs_may_go_on_alone(
    shas: Shas, stopped: Path
) -> None:
    undisturbed = shas(*FACTOR, "--seeds", "0,4", "--steps", 14)
    alone = shutil.copytree(stopped, stopped / "copy")
    assert shas(*FACTOR, "--seeds", "0,4", "--steps", 14, "--resume", stopped) == undisturbed
    assert shas(*FACTOR, "--seeds", "4", "--steps", 14, "--resume", alone) == {4: undisturbed[4]}
    assert blocks.read_manifest(Layout(alone).manifests(2)[0]).start_step == 10


@pytest.mark.parametrize("damaged", ["slices", "json"])
def test_a_damaged_block_is_passed_over_for_an_older_one(main: Main, stopped: Path, damaged: str) -> None:
    path = Layout(stopped).manifests()[-1].with_suffix(f".{damaged}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    code, lines, errors = main(*FACTOR, "--seeds", "0,4", "--steps", 14, "--resume", stopped)
    assert code == 0
    assert path.name in errors
    assert "Falling back to an older block." in errors
    assert blocks.read_manifest(Layout(stopped).manifests(2)[0]).start_step == 9
    _, undisturbed, _ = main(*FACTOR, "--seeds", "0,4", "--steps", 14)
    assert [line["params_sha256"] for line in lines[-2:]] == [
        line["params_sha256"] for line in undisturbed[-2:]
    ]


def test_the_storage_of_a_sweep_with_its_records_of_attempts_can_be_resumed_from(
    shas: Shas, stopped: Path
) -> None:
    # A ledger keeps what it knows of an attempt beside the attempt's folder.
    (stopped / "attempts" / "00000001.json").write_text("{}")
    assert set(shas(*FACTOR, "--seeds", "0,4", "--steps", 14, "--resume", stopped)) == {0, 4}


def test_states_that_newer_ones_replace_are_deleted(
    block_and_state_a_step: None, main: Main, tmp_path: Path
) -> None:
    main(*BETA, "--steps", 9, "--state-every", 0, "--out", tmp_path)
    assert len(Layout(tmp_path).manifests()) == 9
    assert [path.stem for path in tmp_path.rglob("*.slices")] == ["block-000008"]


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_all_that_a_resume_needs(
    shas: Shas, tmp_path: Path, number: signal.Signals
) -> None:
    words = [*FACTOR, "--seeds", "0,4", "--report-every", "50"]
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPABLE, *words, "--steps", "1000000", "--out", str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()  # of the first block
    process.send_signal(number)
    _, err = process.communicate()
    assert process.returncode == 130, err
    (line,) = err.splitlines()
    stopped = re.fullmatch(rf"Stopped at step (\d+)\. .*--resume {tmp_path} .*", line)
    assert stopped is not None
    step = int(stopped[1])
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


@pytest.mark.system
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


def test_a_run_that_is_about_to_diverge_prints_strict_json(main: Main) -> None:
    """Its KL overflows while its loss is still finite."""
    code, lines, _ = main(
        *("beta_vae", "--data", "sprites", "--set", "vae.network=mlp", "--set", "vae.latent_dim=3"),
        *("--seeds", "0-3", "--set", "adam.learning_rate=0.3"),
        *("--steps", 5, "--report-every", 1, "--evaluate-every", 1),
    )
    assert code in (0, 1)
    assert any(line.get("kl", 0.0) is None for line in lines)


# What cannot be gone on from.


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of seeds 0, 1, 2 and 4 at step 3, of which 0 and 1 went on to step 5."""
    storage = tmp_path_factory.mktemp("saved")
    for words in (
        ["--seeds", "0-2,4", "--steps", "3", "--out"],
        ["--seeds", "0,1", "--steps", "5", "--resume"],
    ):
        assert program.main([*BETA, *words, str(storage)]) == 0
    return storage


HAS = "beta_vae --data sprites --set vae.latent_dim=3 --set vae.network=mlp --set vae.width=37 --seeds 0-2,4"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--steps", "9", "--set", "beta=3"],
            "--resume {}: has no run with these options. It has:\n  " + HAS,
        ),
        (["--steps", "9", "--seeds", "0,7"], "--resume {}: has only 1 of these 2 runs. It has:\n  " + HAS),
        (
            ["--steps", "9", "--precision", "bf16"],
            "--seeds 0-2,4 (at steps 3 to 5)\nRepeat these options, or start",
        ),
        (
            ["--steps", "2"],
            "--steps 2: {} has these runs at step 3 already, and no earlier states.\nUse --steps 3 or",
        ),
    ],
)
def test_what_cannot_be_resumed_is_told_with_what_there_is(
    main: Main, saved: Path, words: list[str], said: str
) -> None:
    code, lines, errors = main(*BETA, *words, "--resume", saved)
    assert (code, lines) == (2, [])
    assert said.format(saved) in errors
    assert len(errors.splitlines()) <= 3


def test_steps_that_were_passed_are_answered_and_told(main: Main, saved: Path) -> None:
    _, expected, _ = main(*BETA, "--seeds", "0-1", "--steps", "3")
    code, lines, errors = main(*BETA, "--seeds", "0-1", "--steps", "3", "--resume", saved)
    assert code == 0
    assert [line["params_sha256"] for line in lines] == [line["params_sha256"] for line in expected[-2:]]
    assert errors == f"Note: {saved} has these runs up to step 5; --steps 3 resumes from step 3.\n"


def test_runs_without_a_common_step_are_told_apart(main: Main, tmp_path: Path) -> None:
    for seed, steps in ((0, 3), (1, 5)):
        main(*BETA, "--seeds", seed, "--steps", steps, "--out", tmp_path)
    code, _, errors = main(*BETA, "--seeds", "0-1", "--steps", 9, "--resume", tmp_path)
    assert code == 2
    assert "these runs have no intact states at a common step.\nResume one seed at a time" in errors


def test_a_storage_of_damaged_blocks_alone_has_nothing_to_resume(main: Main, tmp_path: Path) -> None:
    main(*BETA, "--steps", 3, "--out", tmp_path)
    for path in Layout(tmp_path).manifests():
        path.write_text("{}")
    code, _, errors = main(*BETA, "--steps", 9, "--resume", tmp_path)
    assert code == 2
    assert errors.endswith(f"--resume {tmp_path}: no intact blocks in it.\nStart anew with --out.\n")


def test_runs_that_diverged_are_named(main: Main, tmp_path: Path) -> None:
    diverging = [*BETA, "--set", "beta=3e38", "--seeds", "0-1"]
    main(*diverging, "--steps", 3, "--out", tmp_path)
    code, _, errors = main(*diverging, "--steps", 9, "--resume", tmp_path)
    assert code == 2
    assert "seeds that diverged have no states to resume from: 0-1.\nLeave them out" in errors


def test_seeds_are_listed_as_they_are_typed() -> None:
    assert resuming.ranges([7, 0, 2, 1, 9, 8, 4]) == "0-2,4,7-9"


# What a person got wrong.

NUM_CPUS = command_line.available_cpus()


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
        ([*BETA, "--set", "beta="], "'beta=' has no value.\nUse field=value"),
        ([*BETA, "--set", "beta=high"], "beta=high: expected a number, for example beta=4."),
        ([*BETA, "--set", "beta=-2"], "beta=-2: beta must be at least 0"),
        ([*BETA, "--set", "beta=inf"], "beta=inf: expected a finite number, for example beta=4."),
        (
            [*BETA, "--set", "adam.learning_rate=nan"],
            "adam.learning_rate=nan: expected a finite number, for example adam.learning_rate=0.0001.",
        ),
        ([*BETA[:3], "--set", "vae.latent_dim=2.5"], "vae.latent_dim=2.5: expected a whole number"),
        ([*BETA[:3], "--set", "vae.network=cnov"], "'cnov'. Did you mean 'conv'?\nValid: auto, conv, mlp."),
        (
            [*BETA[:3], "--set", "vae.network=conv"],
            "vae.network=conv takes square images of 32, 64, 128 or 256 pixels a side; these are 16 x 16.\n"
            "Use --set vae.network=auto, which",
        ),
        ([*BETA, "--seeds", "1-"], "--seeds 1-: '1-' is not a seed or a range.\nUse for example 0-9"),
        ([*BETA, "--seeds", "4294967296"], "not an ascending range within 0 .. 4294967295"),
        ([*BETA, "--steps", "0"], "--steps 0: expected a whole number of at least 1, for example 200.\n"),
        ([*BETA, "--steps", "-5"], "--steps -5: expected a whole number of at least 1"),
        ([*BETA, "--steps", "many"], "--steps many: expected a whole number of at least 1"),
        ([*BETA, "--steps", "1.5"], "--steps 1.5: expected a whole number of at least 1"),
        ([*BETA, "--report-every", "0"], "--report-every 0: expected a whole number of at least 1"),
        ([*BETA, "--evaluate-every", "-1"], "--evaluate-every -1: expected a whole number of at least 1"),
        *(
            (
                [*BETA, "--threads", number],
                f"--threads {number}: expected a whole number from 1 to {NUM_CPUS} (this machine has {NUM_CPUS} CPUs).\n",
            )
            for number in ("0", "x", str(NUM_CPUS + 1), "100000")
        ),
        ([*BETA, "--state-every", "-1"], "--state-every -1: must be at least 0, for example 120."),
        ([*BETA, "--state-every", "nan"], "--state-every nan: must be at least 0, for example 120."),
        ([*BETA, "--state-every", "x"], "--state-every x: expected seconds, for example 120."),
        ([*BETA, "--precision", "tf32"], "--precision tf32: not available on a CPU."),
        (
            [*BETA, "--precision", "fp8"],
            "--precision fp8: unknown. Did you mean 'fp32'?\nValid: fp32, tf32, bf16.\n",
        ),
        ([*BETA, "--device", "gpu"], "--device gpu: unknown. Did you mean 'cuda'?\nValid: cpu, cuda.\n"),
        (
            [*BETA, "--out", "/proc/nope"],
            "Cannot save blocks in /proc/nope: No such file or directory.\nChoose",
        ),
        ([*BETA, "--out", "a" * 300], ": File name too long.\nChoose another."),
        ([*BETA, "--out", ""], "--out is empty.\nName a folder, or leave the option out.\n"),
        ([*BETA, "--out", "a", "--resume", "b"], "--out a and --resume b exclude each other"),
        ([*BETA, "--resume", ""], "--resume is empty.\n"),
        (
            [*BETA, "--resume", "nowhere"],
            "--resume nowhere: no such folder.\nName the folder of an earlier --out",
        ),
        (
            [*BETA, "--resume", "tests"],
            "--resume tests: no blocks in it.\nName the folder of an earlier --out",
        ),
        ([*BETA, "--resume", "a" * 300], ": File name too long.\nName the folder of an earlier --out"),
        (["beta_vae", "--data", "tests"], "\nFor the folder of that name write ./tests.\n"),
        (["beta_vae", "--data", "LICENSE"], "\nFor the file of that name write ./LICENSE.\n"),
        (["beta_vae", "--data", "a" * 300], "\nFor your own images give a path"),
        (
            ["beta_vae", "--data", "https://x.org/a.npz"],
            "https://x.org/a.npz is an address; expected a path on this machine.\nDownload it first",
        ),
        (["beta_vae", "--data", "s3://b/a.npz"], "s3://b/a.npz is an address"),
        (["beta_vae", "--data", "file:///a.npz"], "\nLeave out file://.\n"),
        (["beta_vae", "--data", f"./{'a' * 300}"], "File name too long.\nUse a file"),
        (
            [*BETA, "--outt", "x"],
            "Unknown option '--outt'. Did you mean '--out'?\nSee python -m trainables --help.\n",
        ),
        (
            [*BETA, "--evaluate_every=3"],
            "Unknown option '--evaluate_every'. Did you mean '--evaluate-every'?\n",
        ),
        ([*BETA, "-seeds", "3"], "Unknown option '-seeds'. Did you mean '--seeds'?\n"),
        ([*BETA, "--xyz"], "Unknown option '--xyz'.\nSee"),
        (
            [*BETA, "--s", "3"],
            "Ambiguous option: --s could match --seeds, --set, --steps, --state-every.\nSee",
        ),
        ([*BETA, "--set", "batch_size=1e12"], "\nUse smaller ones, for example batch_size="),
        ([*BETA, "factor_vae"], "Unexpected argument: factor_vae.\nSee python -m trainables --help.\n"),
        ([*BETA, "--seeds"], "--seeds needs a value.\nSee python -m trainables --help.\n"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_wrong_input_ends_with_2_and_says_what_is_valid(
    main: Main, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    code, lines, errors = main(*arguments[:1], "--steps", 3, *arguments[1:])
    assert (code, lines) == (2, [])
    assert said in errors
    assert 1 <= len(errors.splitlines()) <= 3


@pytest.mark.parametrize("option", ["--out", "--resume"])
def test_a_file_in_the_place_of_the_storage_is_refused(
    main: Main, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("")
    code, lines, errors = main(*BETA, "--steps", 3, option, "taken")
    assert (code, lines) == (2, [])
    assert errors.startswith(f"{option} taken: is a file; expected a folder.\n")


def test_a_file_above_the_storage_is_named(main: Main, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    out = tmp_path / "taken" / "deep"
    code, _, errors = main(*BETA, "--steps", 3, "--out", out)
    assert code == 2
    assert errors == f"--out {out}: {tmp_path / 'taken'} is a file; expected a folder.\nChoose another.\n"


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        ([], "MODEL, --data, --steps"),
        (["beta_vae"], "--data, --steps"),
        (BETA, "--steps"),
        (["beta_vae", "--steps", "3"], "--data"),
    ],
)
def test_what_is_missing_is_named_with_an_example_that_parses(
    main: Main, arguments: list[str], missing: str
) -> None:
    code, lines, errors = main(*arguments)
    assert (code, lines) == (2, [])
    first, example, see = errors.splitlines()
    assert first == f"Missing: {missing}."
    assert see == "See python -m trainables --help."
    command_line.build_parser(None).parse_args(
        example.removeprefix("For example: python -m trainables ").split()
    )


def test_the_example_of_the_help_is_one_that_can_be_trained(small_run: Callable[..., ResolvedRun]) -> None:
    assert f"python -m trainables {command_line.EXAMPLE}\n" in str(program.__doc__)
    options = command_line.build_parser(None).parse_args(command_line.EXAMPLE.split())
    fields = config.parse_fields(options.set)
    assert {"discriminator.width"} == set(fields)
    assert small_run(options.model, fields=fields, data=options.data).source.shape == (1, 16, 16)


def test_examples_of_values_are_the_defaults_of_their_fields() -> None:
    for model in plugins.names("trainables.models"):
        default = contracts.model(model).Config()
        for name, value in config.flatten(default).items():
            if isinstance(value, str):
                continue
            with pytest.raises(InputError, match=rf"^{name}=\?: expected ") as error:
                config.replace(default, {name: "?"})
            example = str(error.value).partition(f"for example {name}=")[2].removesuffix(".")
            assert config.replace(default, {name: example}) == default, name


def test_the_help_names_the_models_and_data_sets_found(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        program.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for package in ("trainables.models", "trainables.data"):
        assert ", ".join(plugins.names(package)) in text
