"""What is typed and what is answered. Nothing trains here; what trains is in test_run.py."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import pytest

from sweeper import home as homes
from sweeper.cli import main, sweeper
from sweeper.home import Home, lock_home
from sweeper.ledger import Draw, Ledger, Member
from sweeper.records import SweepId
from trainables import plugins
from trainables.blocks import Manifest, Point, RunEntry, write_block

ROOT = Path(__file__).parents[2]
COMMANDS = sorted(sweeper.commands)
METRICS = ("recon_error", "factor_vae_score")
SPEC = {"model": "factor_vae", "recipe": "sprites (rendered v1)"}
STEPS = 200
NOBODY = 65534


@pytest.fixture
def home(tmp_path):
    """A home in which one sweep has run: two draws, two seeds, numbers that anyone can check."""
    home = Home.at(tmp_path / "home")
    draws = [
        Draw(
            number,
            {"gamma": gamma},
            tuple(Member(f"{number}{seed}", seed, STEPS, SPEC) for seed in range(2)),
        )
        for number, gamma in enumerate((1.0, 60.0))
    ]
    words = {"question": "?", "model": "factor_vae", "objectives": METRICS, "metrics": METRICS, "note": ""}
    with Ledger(home.ledger, home.storage) as ledger:
        for label in ("", "mine"):
            ledger.register_sweep(SweepId("factorvae_gamma", "smoke", label), words, draws)
        keys = [member.key for draw in draws for member in draw.members]
        number = ledger.begin_attempt(keys)
        runs = tuple(RunEntry(key, int(key[1]), "done", STEPS, STEPS, SPEC) for key in keys)
        points = tuple(
            Point(key, STEPS, 1e9, name, value)
            for key in keys
            for name, value in zip(METRICS, (30.0 + int(key[0]) + int(key[1]), 0.5), strict=True)
        )
        manifest = Manifest(number, 0, 0, STEPS, "here", "1", 1e9, 1.0, runs, points)
        ledger.take(write_block(home.storage, manifest, {key: {"state": b"x"} for key in keys}))
        ledger.end_attempt(number, "done")
    return home.path


def refused(capsys, words, said, code=2):
    """Type words; they are refused in one to three lines that say all of this."""
    assert main([str(word) for word in words]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert 1 <= len(err.splitlines()) <= 3, err
    assert "Traceback" not in err
    for each in said:
        assert str(each) in err, f"{each!r} is not in: {err}"


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
def test_a_wrong_word_is_refused_with_a_remedy(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(capsys, words, said)
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
def test_a_field_that_a_model_does_not_take_is_refused_before_anything_is_kept(word, said, tmp_path, capsys):
    refused(capsys, [*PLAN, "--as", "x", "--set", word, "--home", tmp_path / "home"], said)
    assert not (tmp_path / "home").exists()


def test_a_gpu_is_asked_for_where_there_is_none(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    refused(capsys, [*PLAN, "--gpus-per-pack", "0.25", "--home", tmp_path], ["--gpus-per-pack", "--address"])


def test_a_plan_that_takes_days_on_a_cpu_is_refused_unless_insisted(capsys, tmp_path):
    assert main(["run", "betavae_beta", "--home", str(tmp_path / "home")]) == 2
    refusal = "\n".join(capsys.readouterr().err.splitlines()[-2:])
    for word in ("paper", "days", "--scale laptop", "--gpus-per-pack", "--yes"):
        assert word in refusal
    refused(capsys, ["status", "betavae_beta", "--home", tmp_path / "home"], ["betavae_beta-paper"])


def test_plan_tells_runs_time_and_cost_and_keeps_nothing(capsys, tmp_path):
    words = [*PLAN, "--home", str(tmp_path / "home"), "--price-per-hour", "3600"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"duration_s", "pack_memory_gib", "num_runs", "num_packs", "num_slots", "cost"}
    assert told["num_runs"] == 4
    assert 0 < told["cost"] == told["duration_s"] < 600
    assert not (tmp_path / "home").exists()


# What can be asked of a home.


@pytest.mark.parametrize("command", ["status", "pareto", "sync", "verify", "export"])
def test_a_home_without_a_ledger_has_nothing_to_show(command, tmp_path, capsys):
    words = [command, "factorvae_gamma", "--home", tmp_path / "home"]
    words += ["--runs", tmp_path / "runs.csv"] if command == "export" else []
    refused(capsys, words, [tmp_path / "home", "Train first", "--home"])
    assert not list(tmp_path.iterdir())


def test_pages_need_something_to_show(tmp_path, capsys):
    refused(capsys, ["ui", "--home", tmp_path], [tmp_path / "mlflow.db", "Train first"])


@pytest.mark.parametrize("command", ["status", "pareto", "verify", "sync"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["factorvae_gama", "--scale", "smoke"], ["factorvae_gama", "Did you mean 'factorvae_gamma'?"]),
        (["betavae_beta", "--scale", "smoke"], ["betavae_beta-smoke", "Run it first"]),
        (["factorvae_gamma", "--scale", "lptop"], ["factorvae_gamma-lptop", "--scale smoke"]),
        (["factorvae_gamma", "--scale", "smoke", "--as", "min"], ["smoke-min", "--as mine"]),
        (["factorvae_gamma", "--scale", "smoke", "--as", "a b"], ["'a b'", "letters"]),
    ],
    ids=["sweep", "not run", "scale", "label", "wrong label"],
)
def test_a_sweep_that_a_home_does_not_have_is_refused(command, words, said, home, capsys):
    refused(capsys, [command, *words, "--home", home], said)


@pytest.mark.parametrize(
    ("objectives", "said"),
    [
        ("recon_eror,factor_vae_score", ["recon_eror", "Did you mean 'recon_error'?"]),
        ("recon_error,kl", ["kl", "recon_error"]),
        ("recon_error,,factor_vae_score", ["''", "recon_error"]),
        ("", ["''", "recon_error"]),
        ("recon_error,recon_error", ["recon_error", "once"]),
    ],
)
def test_wrong_objectives_are_refused(objectives, said, home, capsys):
    words = ["pareto", "factorvae_gamma", "--scale", "smoke", "--home", home, "--objectives", objectives]
    refused(capsys, words, said)


def test_a_file_that_cannot_be_written_is_refused(home, capsys):
    words = ["factorvae_gamma", "--scale", "smoke", "--home", home]
    refused(capsys, ["pareto", *words, "--csv", f"{__file__}/x.csv"], ["--csv", __file__])
    refused(capsys, ["export", *words, "--runs", f"{__file__}/x.csv"], ["--runs", __file__])


def test_a_password_in_the_tracking_address_is_refused_and_not_repeated(home, capsys):
    uri = "postgresql://me:secret@db/mlflow"
    words = ["factorvae_gamma", "--scale", "smoke", "--home", str(home), "--tracking-uri", uri]
    for command in ("run", "sync", "verify"):
        assert main([command, *words]) == 2
        err = capsys.readouterr().err
        assert "password" in err
        assert "secret" not in err


def test_a_file_that_is_no_ledger_is_refused(tmp_path, capsys):
    (tmp_path / "ledger.db").write_text("this is a shopping list " * 99)
    refused(capsys, ["status", "factorvae_gamma", "--home", tmp_path], [tmp_path / "ledger.db", "ledger"])


def test_a_storage_of_another_home_is_refused(home, tmp_path, capsys):
    words = [*RUN, "--home", tmp_path / "other", "--storage", home / "storage"]
    refused(capsys, words, [home / "storage", "--storage"])


def test_a_damaged_storage_is_named(home, capsys):
    marker = home / "storage" / "ledger.json"
    marker.write_bytes(marker.read_bytes().replace(b'"ledger"', b'"lodger"'))
    refused(capsys, [*RUN, "--home", home], [marker, "damaged"], code=3)


@pytest.mark.skipif(not hasattr(os, "setresuid"), reason="needs to be another user for a while")
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_home_that_may_not_be_written_in_is_refused(mode, capsys):
    """As another user where the tests run as root, who may write everywhere."""
    refused(capsys, [*RUN, "--home", f"{__file__}/x"], [])  # imports what another user may not read
    closed = Path(tempfile.mkdtemp())
    closed.chmod(mode)
    try:
        if os.geteuid() == 0:
            os.setresuid(NOBODY, NOBODY, 0)
        refused(capsys, [*RUN, "--home", closed / "home"], [f"--home {closed / 'home'}", "Name another"])
    finally:
        if os.getresuid()[2] == 0:
            os.setresuid(0, 0, 0)
        closed.chmod(0o755)
        closed.rmdir()


def test_a_home_in_use_names_its_driver(home, capsys):
    with lock_home(home):
        refused(
            capsys,
            [*RUN, "--home", home],
            [home, f"pid {os.getpid()}", socket.gethostname(), "--home"],
        )


def test_a_home_on_a_network_file_system_is_refused(tmp_path, capsys, monkeypatch):
    mounts = f"/dev/sda1 / ext4 rw 0 0\nserver:/export {tmp_path} nfs4 rw 0 0\n"
    monkeypatch.setattr(homes, "_read_mounts", lambda: mounts)
    refused(capsys, [*RUN, "--home", tmp_path / "home"], [tmp_path, "nfs4", "--home", "--storage"])


@pytest.mark.parametrize("is_held", [False, True])
def test_status_tells_how_far_a_sweep_is_while_a_driver_works(is_held, home, capsys):
    words = ["status", "factorvae_gamma", "--scale", "smoke", "--home", str(home)]
    with lock_home(home) if is_held else nullcontext():
        assert main([*words, "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert main(words) == 0
    assert told == {
        "sweep": "factorvae_gamma",
        "scale": "smoke",
        "label": "",
        "home": str(home),
        "counts": {"planned": 0, "running": 0, "done": 4, "failed": 0, "diverged": 0},
    }
    shown = capsys.readouterr().out
    assert "factorvae_gamma-smoke" in shown
    assert "4" in shown


def test_the_home_can_come_from_the_environment(home, capsys, monkeypatch):
    monkeypatch.setenv("SWEEPER_HOME", str(home))
    assert main(["status", "factorvae_gamma", "--scale", "smoke", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["home"] == str(home)


@pytest.mark.parametrize("error", ["[Errno 28] No space left on device", "bad path [/tmp/x]", "[bold]"])
def test_status_says_why_a_run_failed_in_the_errors_own_words(error, home, capsys):
    sweep = SweepId("betavae_beta", "smoke")
    with Ledger(home / "ledger.db", home / "storage") as ledger:
        words = {"model": "beta_vae", "metrics": METRICS}
        ledger.register_sweep(sweep, words, [Draw(0, {"beta": 4.0}, (Member("k", 3, STEPS, SPEC),))])
        number = ledger.begin_attempt(["k"])
        ledger.end_attempt(number, "failed", error)
        ledger.record_failure("k", number, "error", f"Traceback ...\n{error}")
    assert main(["status", "betavae_beta", "--scale", "smoke", "--home", str(home)]) == 0
    assert f"failed: betavae_beta-smoke beta=4 seed 3: {error}" in capsys.readouterr().out


def test_the_front_is_told_and_written_where_asked(home, tmp_path, capsys):
    csv, plot = tmp_path / "new" / "front.csv", tmp_path / "new" / "front.svg"
    words = ["pareto", "factorvae_gamma", "--scale", "smoke", "--home", str(home)]
    assert main([*words, "--csv", str(csv), "--plot", str(plot), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"summary", "files"}
    assert told["files"] == [str(csv), str(csv.with_name("front_left_out.csv")), str(plot)]
    assert all(Path(file).stat().st_size for file in told["files"])
    assert "gamma=1 " in told["summary"][0]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == told["summary"]


def test_runs_are_exported(home, tmp_path, capsys):
    path = tmp_path / "runs.csv"
    words = ["export", "factorvae_gamma", "--scale", "smoke", "--home", str(home), "--runs", str(path)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"Wrote {path}\n"
    assert len(path.read_text().splitlines()) == 1 + 4 * len(METRICS)


def test_what_is_written_is_registered_unless_a_driver_holds_the_home(home, tmp_path, capsys):
    words = ["pareto", "factorvae_gamma", "--scale", "smoke", "--home", str(home), "--csv"]
    with lock_home(home):
        assert main([*words, str(tmp_path / "held.csv")]) == 0
        assert f"held by pid {os.getpid()}" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "free.csv")]) == 0
    assert capsys.readouterr().err == ""


def test_a_front_of_a_home_whose_storage_is_elsewhere_is_registered_too(home, tmp_path, capsys):
    (home / "storage").rename(tmp_path / "shared")
    words = ["factorvae_gamma", "--scale", "smoke", "--home", str(home)]
    words += ["--storage", str(tmp_path / "shared"), "--csv", str(tmp_path / "front.csv")]
    assert main(["pareto", *words]) == 0
    assert capsys.readouterr().err == ""
    assert not (home / "storage").exists()
