"""What is typed and what is answered where no home is needed; what trains is in test_run.py."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from sweeper import __main__
from sweeper.cli import app, streams
from sweeper.cli.app import main, sweeper
from sweeper.home import Home
from trainables import plugins

pytestmark = pytest.mark.usefixtures("lent_probe")

ROOT = Path(__file__).parents[3]
COMMANDS = sorted(sweeper.commands)


RUN = ["run", "factorvae_gamma", "--scale", "smoke"]
PLAN = ["plan", "factorvae_gamma", "--scale", "smoke"]
SET = [*RUN, "--as", "x", "--set"]
LONG = "x" * 300

AT_ONCE = {
    "command": (["rnu"], ["rnu", "Did you mean 'run'?", "--help"]),
    "no sweep": (["run"], ["Missing: a sweep.\nValid: betavae_beta, factorvae_gamma", "run --help"]),
    "option": ([*RUN, "--scal", "smoke"], ["Unknown option '--scal'. Did you mean '--scale'?"]),
    "sweep": (["run", "factorvae_gama"], ["factorvae_gama", "Did you mean 'factorvae_gamma'?"]),
    "second sweep": (["plan", "betavae_beta", "beta"], ["'beta'", "betavae_beta"]),
    "scale": (["run", "betavae_beta", "--scale", "lptop"], ["lptop", "Did you mean 'laptop'?", "smoke"]),
    "seeds, a word": ([*RUN, "--seeds", "all"], ["'all'", "0-9"]),
    "seeds, downwards": ([*RUN, "--seeds", "3-1"], ["'3-1'", "0-9"]),
    "seeds, a gap": ([*RUN, "--seeds", "1,,2"], ["--seeds 1,,2", "0,3,7"]),
    "seeds, negative": ([*PLAN, "--seeds=-1"], ["'-1'", "0-9"]),
    "seeds, none": ([*RUN, "--seeds", ""], ["''", "0-9"]),
    "seeds, too large": ([*RUN, "--seeds", "4294967296"], ["4294967296", "4294967295"]),
    "seeds, too many": ([*RUN, "--seeds", "0-4294967295"], ["0-4294967295", "0-9"]),
    "set, no value": ([*SET, "gamma"], ["'gamma'", "gamma=10"]),
    "set, empty value": ([*SET, "gamma="], ["'gamma='", "gamma=10"]),
    "set, no field": ([*SET, "=3"], ["'=3'", "gamma=10"]),
    "set, no label": ([*RUN, "--set", "gamma=2"], ["--set gamma", "--as"]),
    "set, no number": ([*SET, "gamma=big"], ["gamma=big", "gamma=1,10"]),
    "set, no steps": ([*SET, "steps=0"], ["steps=0", "steps=1000"]),
    "set, half a step": ([*SET, "evaluate_every=1.5"], ["evaluate_every=1.5", "evaluate_every=1000"]),
    "set, a value twice": ([*SET, "gamma=1,1.0"], ["gamma=1,1.0", "once"]),
    "set, too many steps": ([*SET, "steps=99999999999999999999"], ["steps=9999", "1,000,000,000"]),
    "set, too rare reports": (
        [*SET, "report_every=1000000001"],
        ["report_every=1000000001", "1,000,000,000"],
    ),
    "set, no end of steps": ([*SET, f"steps={'9' * 5000}"], ["steps=9999", "1,000,000,000"]),
    "set, nothing": ([*RUN, "--as", "x", "--set", ""], ["''", "gamma=10"]),
    "data": ([*RUN, "--as", "x", "--data", "dsprite"], ["dsprite", "Did you mean 'dsprites'?", "./pictures"]),
    "data, no label": ([*RUN, "--data", "dsprites"], ["--data dsprites", "--as"]),
    "data, not there": ([*RUN, "--as", "x", "--data", "./nope.npz"], ["--data ./nope.npz", "no such file"]),
    "images, no data": (
        [*RUN, "--as", "x", "--images", "imgs"],
        ["--images needs images of your own", "--data"],
    ),
    "images of a set": (
        [*RUN, "--as", "x", "--data", "sprites", "--factors", "y"],
        ["--factors is for images of your own; sprites is"],
    ),
    "images, no label": (
        [*RUN, "--data", __file__, "--images", "a b"],
        [f"--data {__file__} --images 'a b' makes a variant", "--as"],
    ),
    "images to calibrate": (
        ["calibrate", "sprites", "--labels", "folders"],
        ["--labels is for images of your own"],
    ),
    "factor sizes": (
        [*RUN, "--as", "x", "--data", __file__, "--factor-sizes", "3x"],
        ["--factor-sizes 3x: expected", "3,6,40,32,32"],
    ),
    "data, empty": ([*RUN, "--as", "x", "--data", ""], ["''", "dsprites"]),
    "figure": (["figure", "7", "factorvae_gamma"], ["'7'", "3, 4, 5, 6, metrics"]),
    "figure, no sweep": (["figure", "4"], ["Missing: a sweep.\nValid: betavae_beta", "figure --help"]),
    "figure, nothing": (["figure"], ["Missing: a kind of figure (3, 4, 5, 6 or metrics)", "figure 4"]),
    "figure, the sweep first": (["figure", "factorvae_gamma", "4"], ["The kind comes first", "figure 4"]),
    "calibrate, nothing": (["calibrate"], ["Missing: a data set.\nValid: celeba", "your own images"]),
    "figure of a metric": (["figure", "4", "betavae_beta", "--metrics", "migg"], ["migg", "'mig'"]),
    "calibrate": (["calibrate", "dsprite"], ["dsprite", "Did you mean 'dsprites'?"]),
    "calibrate a metric": (["calibrate", "sprites", "--metric", "migg"], ["migg", "Did you mean 'mig'?"]),
    "label": ([*RUN, "--as", "a/b"], ["a/b", "letters"]),
    "label, empty": ([*RUN, "--as", ""], ["--as ''", "--as wide"]),
    "label, too long": ([*RUN, "--as", LONG], [LONG, "300", "64"]),
    "home": ([*RUN, "--home", __file__], [f"--home {__file__}: is a file; expected a folder"]),
    "home in a file": ([*RUN, "--home", f"{__file__}/x"], ["--home", __file__, "Choose another"]),
    "home, empty": ([*RUN, "--home", ""], ["--home ''", "empty"]),
    "home, empty, to be shown": (
        ["status", "factorvae_gamma", "--home", ""],
        ["--home ''", "empty"],
    ),
    "home, too long a name": ([*RUN, "--home", LONG], ["--home", LONG, "200"]),
    "home, too long": ([*RUN, "--home", "sweeps/" * 70], ["--home", "400"]),
    "home, too long, to be shown": (["status", "factorvae_gamma", "--home", LONG], ["--home", LONG, "200"]),
    "home of the kernel": ([*RUN, "--home", "/proc/x"], ["--home /proc/x", "Choose another"]),
    "home, percent": ([*RUN, "--home", "50%"], ["--home 50%", "'%'", "MLflow", "Choose another"]),
    "home, question mark": (["sync", "factorvae_gamma", "--home", "why?/x"], ["why?", "'?'", "MLflow"]),
    "home, hash": (["verify", "factorvae_gamma", "--home", "take#2"], ["take#2", "'#'", "MLflow"]),
    "home, a line": (["ui", "--home", "a\nb"], [r"'\n'", "MLflow"]),
    "nothing to rebuild": (["rebuild", "--home", "x"], ["--home", "x/storage", "--storage"]),
    "nothing to rebuild there": (["rebuild", "--home", "x", "--storage", "y"], ["--home", "/y", "--storage"]),
    "storage, empty": ([*RUN, "--storage", ""], ["--storage ''", "empty"]),
    "storage, too long": ([*RUN, "--storage", LONG], ["--storage", LONG, "200"]),
    "storage": ([*RUN, "--storage", __file__], ["--storage", __file__]),
    "storage in a file": ([*RUN, "--storage", f"{__file__}/x"], ["--storage", __file__, "Choose another"]),
    "GPU share": ([*RUN, "--gpus-per-pack", "0.3"], ["0.3", "0.25", "0.333"]),
    "GPU share above 1": ([*PLAN, "--gpus-per-pack", "1.5"], ["1.5", "0.5"]),
    "GPU share below 0": ([*PLAN, "--gpus-per-pack", "-0.5"], ["-0.5", "0.25"]),
    "GPU share, a word": ([*RUN, "--gpus-per-pack", "half"], ["--gpus-per-pack half", "0.25"]),
    "GPU share, nan": ([*RUN, "--gpus-per-pack", "nan"], ["nan", "0.25"]),
    "GPU share, inf": ([*RUN, "--gpus-per-pack", "inf"], ["inf", "0.25"]),
    "GPU share, nothing": ([*RUN, "--gpus-per-pack", "1e-9"], ["1e-09", "0.25"]),
    "tracking, no address": ([*RUN, "--tracking-uri", "mlruns"], ["mlruns", "http"]),
    "tracking, empty": ([*RUN, "--tracking-uri", ""], ["--tracking-uri", "MLflow", "sqlite"]),
    "tracking, a folder": ([*RUN, "--tracking-uri", "file:///tmp/x"], ["file:///tmp/x", "sqlite"]),
    "address": ([*RUN, "--address", "nowhere"], ["--address nowhere", "HOST:PORT", "6379"]),
    "address, no port": ([*RUN, "--address", "ray://nowhere"], ["--address ray://nowhere", "--address"]),
    "address, empty": ([*RUN, "--address", ""], ["--address ''", "HOST:PORT"]),
    "address, nobody there": ([*RUN, "--address", "127.0.0.1:9"], ["127.0.0.1:9", "ray start"]),
    "price": ([*PLAN, "--price-per-hour", "cheap"], ["--price-per-hour cheap", "a number from 0", "2.5"]),
    "price, nan": ([*PLAN, "--price-per-hour", "nan"], ["--price-per-hour nan", "from 0"]),
    "price, inf": ([*PLAN, "--price-per-hour", "inf"], ["--price-per-hour inf", "from 0"]),
    "price, below 0": ([*PLAN, "--price-per-hour", "-3"], ["--price-per-hour -3", "from 0"]),
    "plot": (["pareto", "factorvae_gamma", "--plot", "front.jpg"], ["front.jpg", ".png or .svg"]),
    "plot, no suffix": (["pareto", "factorvae_gamma", "--plot", "front"], ["front", ".png or .svg"]),
    "plot, a folder": (
        ["pareto", "factorvae_gamma", "--plot", "/tmp"],
        ["--plot /tmp", "is a folder; expected a file"],
    ),
    "plot, empty": (["pareto", "factorvae_gamma", "--plot", ""], ["--plot ''", "empty"]),
    "csv, empty": (["pareto", "factorvae_gamma", "--csv", ""], ["--csv ''", "empty"]),
    "csv, another suffix": (["pareto", "factorvae_gamma", "--csv", "front.db"], ["front.db", ".csv"]),
    "csv, too long": (["pareto", "factorvae_gamma", "--csv", f"{LONG}.csv"], ["--csv", LONG, "200"]),
    "csv of the kernel": (["pareto", "factorvae_gamma", "--csv", "/proc/x.csv"], ["--csv /proc/x.csv"]),
    "csv, a folder": (
        ["pareto", "factorvae_gamma", "--csv", "/tmp"],
        ["--csv /tmp", "is a folder; expected a file"],
    ),
    "export, no file": (
        ["export", "factorvae_gamma"],
        ["Missing: --runs (file to write, one row per run", "export --help"],
    ),
    "export, empty": (["export", "factorvae_gamma", "--runs", ""], ["--runs ''", "empty"]),
    "export, another suffix": (["export", "factorvae_gamma", "--runs", "runs"], ["--runs runs", ".csv"]),
    "port": (["ui", "--port", "http"], ["--port http", "a whole number from 1 to 65,535", "5000"]),
    "port, too large": (["ui", "--port", "70000"], ["--port 70000", "a whole number from 1 to 65,535"]),
}


@pytest.mark.parametrize(("words", "said"), AT_ONCE.values(), ids=AT_ONCE)
def test_a_wrong_word_is_refused_with_a_remedy(
    words: Sequence[str],
    said: Sequence[str],
    refused: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(words, said)
    assert not list(tmp_path.iterdir()), "a refused command leaves nothing"


def test_wrong_words_are_refused_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    lines = [words for words, _ in AT_ONCE.values()] + [["--help"], ["list", "--json"]]
    code = (
        "import json, sys\nfrom sweeper.cli.app import main\n"
        "codes = [main(words) for words in json.loads(sys.argv[1])]\n"
        "print(json.dumps([codes, sorted({'torch', 'ray', 'mlflow'} & set(sys.modules))]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, json.dumps(lines)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    codes, imported = json.loads(ran.stdout.splitlines()[-1])
    assert codes == [2] * len(AT_ONCE) + [0, 0]
    assert imported == []


def test_a_command_alone_shows_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().err
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"python -m sweeper {command} " in out
    assert out.count("\n") > 5


def test_the_commands_are_those_that_are_written_about() -> None:
    assert set(COMMANDS) >= {"list", "plan", "run", "status", "pareto", "export", "sync", "verify", "ui"}


def test_list_shows_every_sweep_and_its_question(capsys: pytest.CaptureFixture[str]) -> None:
    names = plugins.names("search_spaces")
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert list(listed) == names
    assert all(question.endswith("?") for question in listed.values())


# Fields of a model are known to a process that has torch; it is asked as soon as the rest is right.


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("gama=1", ["gama", "Did you mean 'gamma'?"]),
        ("stps=10", ["Unknown field 'stps'. Did you mean 'steps'?", "evaluate_every", "vae.latent_dim"]),
        ("gamma=nan", ["gamma=nan", "number"]),
    ],
    ids=["no field", "no field of the protocol", "no number"],
)
def test_a_field_that_a_model_does_not_take_is_refused_before_anything_is_kept(
    word: str, said: list[str], tmp_path: Path, refused: Callable[..., None]
) -> None:
    refused([*PLAN, "--as", "x", "--set", word, "--home", tmp_path / "home"], said)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("command", [PLAN, RUN], ids=["plan", "run"])
def test_a_gpu_is_asked_for_where_there_is_none(
    command: list[str], refused: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    words = ["--gpus-per-pack", "0.25", "--home", tmp_path / "home", "--storage", tmp_path / "shared"]
    refused([*command, *words], ["--gpus-per-pack", "--address"])
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime == before, "a process was started to tell"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("own", "mlflow", "said"),
    [
        ("", "htp://x", "MLFLOW_TRACKING_URI htp://x: not an MLflow store"),
        ("htp://y", "htp://x", "SWEEPER_TRACKING_URI htp://y: not an MLflow store"),
    ],
)
def test_the_store_can_come_from_mlflows_own_variable(
    own: str, mlflow: str, said: str, refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPER_TRACKING_URI", own)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow)
    refused(["ui"], [said])


def test_a_plan_that_takes_days_on_a_cpu_is_refused_unless_insisted(
    refused: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    home, shared = tmp_path / "home", tmp_path / "shared"
    # Days by the number of steps: these are quickly measured, those of the paper are not.
    long = ["--as", "long", "--set", "vae.network=mlp", "--set", "steps=1000000000"]
    assert main(["run", "betavae_beta", *long, "--home", str(home), "--storage", str(shared)]) == 2
    refusal = "\n".join(capsys.readouterr().err.splitlines()[-2:])
    for word in ("days", "--scale laptop", "a machine with a GPU", "--yes"):
        assert word in refusal
    refused(["status", "betavae_beta", "--home", home], ["betavae_beta has no results in"])
    assert Home.at(home).storage == shared, "its storage is known all the same"


def test_plan_tells_runs_time_and_cost_and_keeps_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [*PLAN, "--home", str(tmp_path / "home"), "--price-per-hour", "3600"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {
        *("duration_s", "least_s", "most_s", "pack_memory_gib"),
        *("num_runs", "num_packs", "num_slots", "cost"),
    }
    assert told["num_runs"] == 4
    assert 0 < told["cost"] < 600
    assert told["cost"] == pytest.approx(told["duration_s"])
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (["--device", "cpu", "--gpus-per-pack", "0.5"], {}, ["contradict each other"]),
        ([], {"SWEEPER_GPUS_PER_PACK": "foo"}, ["SWEEPER_GPUS_PER_PACK=foo: not a share", "auto, 0 (CPU)"]),
        ([], {"SWEEPER_DEVICE": "tpu"}, ["tpu", "'auto', 'cpu', 'gpu'"]),
        (["--cluster-gpus", "4"], {}, ["--cluster-gpus needs a cluster", "--address"]),
        (["--set", "precision=fp8", "--as", "x"], {}, ["Unknown precision 'fp8'", "bf16, fp32, tf32"]),
        (["--set", "precision=tf32", "--as", "x"], {}, ["precision=tf32: not available on a CPU."]),
    ],
)
def test_a_wrong_word_about_the_machine_is_answered(
    words: Sequence[str],
    variables: Mapping[str, str],
    said: list[str],
    refused: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no GPU
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refused([*PLAN, *words, "--home", tmp_path / "home"], said)


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "soon"])
def test_states_come_every_so_many_seconds(
    seconds: str, refused: Callable[..., None], tmp_path: Path
) -> None:
    refused(["run", *PLAN[1:], "--state-every", seconds, "--home", tmp_path / "home"], ["--state-every"])


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (["--device", "cpu"], {"SWEEPER_GPUS_PER_PACK": "0.5"}),
        (["--gpus-per-pack", "0"], {"SWEEPER_DEVICE": "gpu"}),
        ([], {"SWEEPER_CLUSTER_GPUS": "4"}),
    ],
)
def test_what_is_typed_wins_over_a_variable(
    words: Sequence[str],
    variables: Mapping[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main([*PLAN, *words, "--home", str(tmp_path / "home"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_runs"] == 4


@pytest.mark.parametrize(("typed_before", "there"), [(None, "1"), ("4", "4")])
def test_numpy_multiplies_on_one_core_unless_a_variable_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, typed_before: str | None, there: str
) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if typed_before:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", typed_before)
    monkeypatch.setattr(streams, "protect", lambda: None)
    monkeypatch.setattr(app, "main", lambda: 0 if os.environ["OPENBLAS_NUM_THREADS"] == there else 1)
    assert __main__.main() == 0
