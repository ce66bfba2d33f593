"""What is typed and what is answered where no home is needed; what trains is in test_run.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.cli import main, sweeper
from trainables import plugins

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(sweeper.commands)


RUN = ["run", "factorvae_gamma", "--scale", "smoke"]
PLAN = ["plan", "factorvae_gamma", "--scale", "smoke"]
SET = [*RUN, "--as", "x", "--set"]

AT_ONCE = {
    "command": (["rnu"], ["rnu", "Did you mean 'run'?", "--help"]),
    "no sweep": (["run"], ["NAME", "run --help"]),
    "option": ([*RUN, "--scal", "smoke"], ["--scal", "--scale"]),
    "sweep": (["run", "factorvae_gama"], ["factorvae_gama", "Did you mean 'factorvae_gamma'?"]),
    "second sweep": (["plan", "betavae_beta", "beta"], ["'beta'", "betavae_beta"]),
    "scale": (["run", "betavae_beta", "--scale", "lptop"], ["lptop", "Did you mean 'laptop'?", "smoke"]),
    "seeds, a word": ([*RUN, "--seeds", "all"], ["'all'", "0-9"]),
    "seeds, downwards": ([*RUN, "--seeds", "3-1"], ["'3-1'", "0-9"]),
    "seeds, a gap": ([*RUN, "--seeds", "1,,2"], ["'1,,2'", "0,3,7"]),
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
    "label": ([*RUN, "--as", "a/b"], ["a/b", "letters"]),
    "home": ([*RUN, "--home", __file__], ["--home", __file__]),
    "home in a file": ([*RUN, "--home", f"{__file__}/x"], ["--home", __file__, "Name another"]),
    "storage": ([*RUN, "--storage", __file__], ["--storage", __file__]),
    "storage in a file": ([*RUN, "--storage", f"{__file__}/x"], ["--storage", __file__, "Name another"]),
    "GPU share": ([*RUN, "--gpus-per-pack", "0.3"], ["0.3", "0.25", "0.333"]),
    "GPU share above 1": ([*PLAN, "--gpus-per-pack", "1.5"], ["1.5", "0.5", "whole"]),
    "GPU share below 0": ([*PLAN, "--gpus-per-pack", "-0.5"], ["-0.5", "0.25"]),
    "GPU share, a word": ([*RUN, "--gpus-per-pack", "half"], ["half", "--help"]),
    "GPU share, nan": ([*RUN, "--gpus-per-pack", "nan"], ["nan", "0.25"]),
    "GPU share, inf": ([*RUN, "--gpus-per-pack", "inf"], ["inf", "0.25"]),
    "GPU share, nothing": ([*RUN, "--gpus-per-pack", "1e-9"], ["1e-09", "0.25"]),
    "tracking, no address": ([*RUN, "--tracking-uri", "mlruns"], ["mlruns", "http"]),
    "tracking, a folder": ([*RUN, "--tracking-uri", "file:///tmp/x"], ["file:///tmp/x", "sqlite"]),
    "address": ([*RUN, "--address", "nowhere"], ["--address nowhere", "ray start"]),
    "address, no port": ([*RUN, "--address", "ray://nowhere"], ["--address ray://nowhere", "ray start"]),
    "address, empty": ([*RUN, "--address", ""], ["--address", "ray start"]),
    "address, nobody there": ([*RUN, "--address", "127.0.0.1:9"], ["127.0.0.1:9", "ray start"]),
    "price": ([*PLAN, "--price-per-hour", "cheap"], ["cheap", "--help"]),
    "plot": (["pareto", "factorvae_gamma", "--plot", "front.jpg"], ["front.jpg", ".png, .svg"]),
    "plot, no suffix": (["pareto", "factorvae_gamma", "--plot", "front"], ["front", ".png, .svg"]),
    "plot, a folder": (["pareto", "factorvae_gamma", "--plot", "/tmp"], ["/tmp", "--help"]),
    "csv, a folder": (["pareto", "factorvae_gamma", "--csv", "/tmp"], ["/tmp", "--help"]),
    "export, no file": (["export", "factorvae_gamma"], ["--runs", "export --help"]),
    "port": (["ui", "--port", "http"], ["http", "--help"]),
    "port, too large": (["ui", "--port", "70000"], ["70000", "--help"]),
}


@pytest.mark.parametrize(("words", "said"), AT_ONCE.values(), ids=AT_ONCE)
def test_a_wrong_word_is_refused_with_a_remedy(words, said, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(words, said)
    assert not list(tmp_path.iterdir()), "a refused command leaves nothing"


def test_wrong_words_are_refused_before_anything_heavy_is_imported(tmp_path):
    lines = [words for words, _ in AT_ONCE.values()] + [["--help"], ["list", "--json"]]
    code = (
        "import json, sys\nfrom sweeper.cli import main\n"
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


def test_a_command_alone_shows_what_there_is(capsys):
    assert main([]) == 2
    shown = capsys.readouterr().err
    assert all(command in shown for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"python -m sweeper {command} " in out
    assert out.count("\n") > 5


def test_the_commands_are_those_that_are_written_about():
    assert set(COMMANDS) >= {"list", "plan", "run", "status", "pareto", "export", "sync", "verify", "ui"}


def test_list_shows_every_sweep_and_its_question(capsys):
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
        ("gamma=nan", ["gamma=nan", "number"]),
    ],
    ids=["no field", "no number"],
)
def test_a_field_that_a_model_does_not_take_is_refused_before_anything_is_kept(word, said, tmp_path, refused):
    refused([*PLAN, "--as", "x", "--set", word, "--home", tmp_path / "home"], said)
    assert not (tmp_path / "home").exists()


def test_a_gpu_is_asked_for_where_there_is_none(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    refused([*PLAN, "--gpus-per-pack", "0.25", "--home", tmp_path], ["--gpus-per-pack", "--address"])


def test_a_plan_that_takes_days_on_a_cpu_is_refused_unless_insisted(refused, capsys, tmp_path):
    assert main(["run", "betavae_beta", "--home", str(tmp_path / "home")]) == 2
    refusal = "\n".join(capsys.readouterr().err.splitlines()[-2:])
    for word in ("paper", "days", "--scale laptop", "--gpus-per-pack", "--yes"):
        assert word in refusal
    refused(["status", "betavae_beta", "--home", tmp_path / "home"], ["betavae_beta-paper"])


def test_plan_tells_runs_time_and_cost_and_keeps_nothing(capsys, tmp_path):
    words = [*PLAN, "--home", str(tmp_path / "home"), "--price-per-hour", "3600"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"duration_s", "pack_memory_gib", "num_runs", "num_packs", "num_slots", "cost"}
    assert told["num_runs"] == 4
    assert 0 < told["cost"] < 600
    assert told["cost"] == pytest.approx(told["duration_s"])
    assert not (tmp_path / "home").exists()
