"""What can be asked of a home, and of one that is not there, in use, damaged or out of reach."""

import ctypes
import json
import os
import re
import resource
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pytest

from sweeper import home as homes
from sweeper.cli.app import main
from sweeper.home import Home, lock_home
from sweeper.ledger.rows import SweepId
from sweeper.ledger.writer import Draw, Ledger, Member
from tests.specs import run_spec, sweep_spec
from trainables import plugins
from trainables.blocks import Manifest, Point, RunEntry, write_block

pytestmark = pytest.mark.usefixtures("lent_probe")

METRICS = ("recon_error", "factor_vae_score")
SPEC = run_spec("factor_vae")
STEPS = 200
ROOT = Path(__file__).parents[3]
RUN = ["run", "factorvae_gamma", "--scale", "smoke"]


@pytest.fixture
def home(tmp_path: Path) -> Path:
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
    with Ledger(home.ledger, home.storage) as ledger:
        for label in ("", "mine"):
            ledger.register_sweep(SweepId("factorvae_gamma", "smoke", label), sweep_spec(), draws)
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


@pytest.mark.parametrize("command", ["status", "pareto", "sync", "verify", "export"])
def test_a_home_without_a_ledger_has_nothing_to_show(
    command: str, tmp_path: Path, refused: Callable[..., None]
) -> None:
    words = [command, "factorvae_gamma", "--home", tmp_path / "home"]
    words += ["--runs", tmp_path / "runs.csv"] if command == "export" else []
    refused(words, [tmp_path / "home", "Train first", "--home"])
    assert not list(tmp_path.iterdir())


def test_pages_need_something_to_show(tmp_path: Path, refused: Callable[..., None]) -> None:
    refused(["ui", "--home", tmp_path], [tmp_path / "mlflow.db", "Train first"])


@pytest.mark.parametrize("command", ["status", "pareto", "verify", "sync"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["factorvae_gama", "--scale", "smoke"], ["factorvae_gama", "Did you mean 'factorvae_gamma'?"]),
        (
            ["betavae_beta", "--scale", "smoke"],
            ["betavae_beta has no results with --scale smoke", "Train it first"],
        ),
        (["factorvae_gamma", "--scale", "lptop"], ["--scale lptop", "there with --scale smoke"]),
        (["factorvae_gamma", "--scale", "smoke", "--as", "min"], ["--as min", "--as mine"]),
        (["factorvae_gamma", "--scale", "smoke", "--as", "a b"], ["--as a b", "letters"]),
    ],
    ids=["sweep", "not run", "scale", "label", "wrong label"],
)
def test_a_sweep_that_a_home_does_not_have_is_refused(
    command: str, words: list[str], said: list[str], home: Path, refused: Callable[..., None]
) -> None:
    refused([command, *words, "--home", home], said)


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
def test_wrong_objectives_are_refused(
    objectives: str, said: list[str], home: Path, refused: Callable[..., None]
) -> None:
    words = ["pareto", "factorvae_gamma", "--scale", "smoke", "--home", home, "--objectives", objectives]
    refused(words, said)


def test_a_file_that_cannot_be_written_is_refused(home: Path, refused: Callable[..., None]) -> None:
    words = ["factorvae_gamma", "--scale", "smoke", "--home", home]
    refused(["pareto", *words, "--csv", f"{__file__}/x.csv"], ["--csv", __file__])
    refused(["export", *words, "--runs", f"{__file__}/x.csv"], ["--runs", __file__])


def test_a_password_in_the_tracking_address_is_refused_and_not_repeated(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = "postgresql://me:secret@db/mlflow"
    words = ["factorvae_gamma", "--scale", "smoke", "--home", str(home), "--tracking-uri", uri]
    for command in ("run", "sync", "verify"):
        assert main([command, *words]) == 2
        err = capsys.readouterr().err
        assert "password" in err
        assert "secret" not in err


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path, refused: Callable[..., None]) -> None:
    (tmp_path / "ledger.db").write_text("this is a shopping list " * 99)
    refused(["status", "factorvae_gamma", "--home", tmp_path], [tmp_path / "ledger.db", "rebuild"], code=3)


def spoil(home: Path) -> None:
    """Overwrite where the ledger looks sweeps up."""
    ledger = home / "ledger.db"
    with closing(sqlite3.connect(ledger)) as db:
        (page,) = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_sweeps_1'"
        ).fetchone()
    content = bytearray(ledger.read_bytes())
    content[4096 * (page - 1) : 4096 * page] = b"\xff" * 4096
    ledger.write_bytes(content)


def spoil_all(home: Path) -> None:
    """Overwrite all but the first page of the ledger."""
    ledger = home / "ledger.db"
    ledger.write_bytes(ledger.read_bytes()[:4096] + b"\xff" * (ledger.stat().st_size - 4096))


def replace(home: Path) -> None:
    """Put something else in the place of the ledger."""
    (home / "ledger.db").write_text("shopping " * 999)


@pytest.mark.parametrize("damage", [spoil, spoil_all])
@pytest.mark.parametrize("command", ["status", "pareto", "sync"])
def test_a_damaged_ledger_is_named_with_the_way_back(
    command: str, damage: Callable[[Path], None], home: Path, refused: Callable[..., None]
) -> None:
    damage(home)
    said = [home / "ledger.db", "damaged", f"python -m sweeper rebuild --home {home}"]
    refused([command, "factorvae_gamma", "--scale", "smoke", "--home", home], said, code=3)


@pytest.mark.parametrize("damage", [spoil, spoil_all, replace])
def test_verify_tells_of_a_damaged_ledger_which_can_be_rebuilt(
    damage: Callable[[Path], None], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verify = ["verify", "factorvae_gamma", "--scale", "smoke", "--home", str(home)]
    damage(home)
    assert main(verify) == 1
    told = capsys.readouterr().out
    for word in (f"{home / 'ledger.db'} is damaged", f"rebuild --home {home}", "Problems found: 1."):
        assert word in told
    (home / "ledger.db").unlink()
    assert main(["rebuild", "--home", str(home)]) == 0
    assert "rebuilt from 1 blocks" in capsys.readouterr().out
    assert main(verify) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"The MLflow store {home / 'mlflow.db'} does not exist.",
        "Problems found: 1.",
    ]


def test_a_disk_that_takes_no_more_is_no_bug(home: Path, refused: Callable[..., None]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        words = ["status", "factorvae_gamma", "--scale", "smoke", "--home", home]
        refused(words, ["Error: ", home / "ledger.db", "run the same command"], code=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_home_remembers_its_storage(
    home: Path, tmp_path: Path, refused: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    shared, words = tmp_path / "shared", ["factorvae_gamma", "--scale", "smoke", "--home", home]
    (home / "storage").rename(shared)
    assert main([str(w) for w in ("pareto", *words, "--storage", shared, "--csv", tmp_path / "a.csv")]) == 0
    capsys.readouterr()
    assert main([str(w) for w in ("verify", *words)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"The MLflow store {home / 'mlflow.db'} does not exist.",
        "Problems found: 1.",
    ]
    for command in ("run", "verify", "sync", "pareto"):
        refused(
            [command, *words, "--storage", tmp_path / "x"], [shared, tmp_path / "x", "Leave out --storage"]
        )


def test_a_rebuilt_home_remembers_its_storage(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "storage").rename(tmp_path / "shared")
    new = tmp_path / "new"
    assert main(["rebuild", "--home", str(new), "--storage", str(tmp_path / "shared")]) == 0
    assert Home.at(new).storage == tmp_path / "shared"
    assert main(["status", "factorvae_gamma", "--scale", "smoke", "--home", str(new)]) == 0


def test_a_home_in_use_is_not_rebuilt(home: Path, refused: Callable[..., None]) -> None:
    (home / "ledger.db").unlink()
    with lock_home(home):
        refused(["rebuild", "--home", home], [home, f"pid {os.getpid()}"])


@pytest.mark.parametrize(
    "place", ["ledger.db", "storage/a.csv", "storage/new/a.csv", "exports/a.csv", "link/a.csv"]
)
@pytest.mark.parametrize("option", ["--csv", "--runs"])
def test_nothing_of_a_home_is_written_over(
    option: str, place: str, home: Path, refused: Callable[..., None]
) -> None:
    (home / "link").symlink_to(home / "storage")
    before = (home / "ledger.db").read_bytes()
    words = ["pareto" if option == "--csv" else "export", "factorvae_gamma", "--scale", "smoke"]
    refused([*words, "--home", home, option, home / place], [option, home / place])
    assert (home / "ledger.db").read_bytes() == before
    assert not list(home.rglob("*.csv"))


def test_a_plot_that_cannot_be_drawn_leaves_no_table(
    home: Path, tmp_path: Path, refused: Callable[..., None]
) -> None:
    words = ["pareto", "factorvae_gamma", "--scale", "smoke", "--home", home, "--objectives", "recon_error"]
    refused([*words, "--csv", tmp_path / "a.csv", "--plot", tmp_path / "a.svg"], ["recon_error"])
    assert not list(tmp_path.glob("a*"))


READ_ONLY = """
import ctypes, os, sys
from pathlib import Path
if len(sys.argv) == 3:  # once more, as a root who may not do everything
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)
    os.execv(sys.executable, [sys.executable, "-c", os.environ["CODE"], *sys.argv[1:], "again"])
from sweeper.cli.app import main
home, free = sys.argv[1:3]
words = ["factorvae_gamma", "--scale", "smoke", "--home", home]
lines = [["status", *words], ["pareto", *words], ["export", *words, "--runs", f"{free}/runs.csv"]]
lines += [["verify", *words], ["plan", *words, "--as", "new"], ["run", *words], ["sync", *words], ["rebuild", "--home", home]]
print(*[f"{line[0]} {main(line)}" for line in lines], sep="\\n", flush=True)
"""


@pytest.mark.system
@pytest.mark.skipif(sys.platform != "linux", reason="needs a root who may not write everywhere")
def test_a_home_that_may_only_be_read_can_be_asked(home: Path, tmp_path: Path) -> None:
    places = [home, *(path for path in home.rglob("*") if path.is_dir())]
    for path in places:
        path.chmod(0o555)
    try:
        ran = subprocess.run(
            [sys.executable, "-c", READ_ONLY, home, tmp_path],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "CODE": READ_ONLY, "OMP_NUM_THREADS": "1"},
        )
    finally:
        for path in places:
            path.chmod(0o755)
    answered = ["status 0", "pareto 0", "export 0", "verify 1", "plan 0", "run 2", "sync 2", "rebuild 2"]
    assert ran.stdout.splitlines()[-len(answered) :] == answered, ran.stderr
    assert f"The MLflow store {home / 'mlflow.db'} does not exist.\nProblems found: 1." in ran.stdout
    assert "Not registered for verify" in ran.stderr
    assert ran.stderr.count("not a writable folder") == 4
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 1 + 4 * len(METRICS)


def test_another_home_over_the_same_storage_has_the_same_results(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, other = ["factorvae_gamma", "--scale", "smoke"], tmp_path / "other"
    assert main(["pareto", *words, "--home", str(home)]) == 0
    before = capsys.readouterr().out
    assert main(["pareto", *words, "--home", str(other), "--storage", str(home / "storage")]) == 0
    found = capsys.readouterr()
    assert found.out == before
    assert f"Makes {other / 'ledger.db'} from {home / 'storage'}" in found.err
    assert main(["pareto", *words, "--home", str(other)]) == 0
    found = capsys.readouterr()
    assert (found.out, found.err) == (before, "")


def test_a_damaged_storage_is_named(home: Path, refused: Callable[..., None]) -> None:
    marker = home / "storage" / "ledger.json"
    marker.write_bytes(marker.read_bytes().replace(b'"ledger"', b'"lodger"'))
    refused([*RUN, "--home", home], [marker, "damaged"], code=3)


@contextmanager
def bound_by_modes() -> Iterator[None]:
    """Without root's right to write everywhere, and to read everywhere unless the checkout needs it."""
    libc, version_and_thread = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0)
    capabilities = (ctypes.c_uint32 * 6)()
    assert libc.capget(version_and_thread, capabilities) == 0
    before = capabilities[0]

    def keep(some: int) -> None:
        capabilities[0] = some
        assert libc.capset(version_and_thread, capabilities) == 0

    keep(before & ~0b110)  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    try:
        if not plugins.names("search_spaces"):
            keep(before & ~0b10)
        yield
    finally:
        keep(before)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a root who may not do everything for a while")
@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_home_that_may_not_be_written_in_is_refused(mode: int, refused: Callable[..., None]) -> None:
    refused([*RUN, "--home", f"{__file__}/x"], [])  # imports what may not be read then
    closed = Path(tempfile.mkdtemp())
    closed.chmod(mode)
    try:
        with bound_by_modes():
            refused([*RUN, "--home", closed / "home"], [f"--home {closed / 'home'}", "Choose another"])
    finally:
        closed.chmod(0o755)
        closed.rmdir()


def test_a_home_in_use_names_its_driver(home: Path, refused: Callable[..., None]) -> None:
    with lock_home(home):
        refused(
            [*RUN, "--home", home],
            [home, f"pid {os.getpid()}", socket.gethostname(), "--home"],
        )


def test_a_home_on_a_network_file_system_is_refused(
    tmp_path: Path, refused: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = f"/dev/sda1 / ext4 rw 0 0\nserver:/export {tmp_path} nfs4 rw 0 0\n"
    monkeypatch.setattr(homes, "_read_mounts", lambda: mounts)
    refused([*RUN, "--home", tmp_path / "home"], [tmp_path, "nfs4", "--home", "--storage"])


@pytest.mark.parametrize("is_held", [False, True])
def test_status_tells_how_far_a_sweep_is_while_a_driver_works(
    is_held: bool, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
        "steps": 4 * STEPS,
        "steps_done": 4 * STEPS,
    }
    shown = capsys.readouterr().out
    assert re.search(r"factorvae_gamma-smoke +\D+0 \D+4 \D+100 %", shown)
    assert main(["status", "--home", str(home)]) == 0
    assert "factorvae_gamma-smoke" in capsys.readouterr().out


def test_the_scale_is_found_where_only_one_is_there(
    home: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., None]
) -> None:
    words = ["status", "factorvae_gamma", "--home", str(home)]
    assert main(words) == 0
    assert "factorvae_gamma-smoke" in capsys.readouterr().out
    with Ledger(home / "ledger.db", home / "storage") as ledger:
        other = SweepId("factorvae_gamma", "laptop")
        ledger.register_sweep(other, sweep_spec("factor_vae"), [])
    refused(words, ["has results with --scale laptop; --scale smoke", "Name one of the scales with --scale"])
    assert main([*words, "--scale", "smoke"]) == 0


def test_the_home_can_come_from_the_environment(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEPER_HOME", str(home))
    assert main(["status", "factorvae_gamma", "--scale", "smoke", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["home"] == str(home)


@pytest.mark.parametrize("error", ["[Errno 28] No space left on device", "bad path [/tmp/x]", "[bold]"])
def test_status_says_why_a_run_failed_in_the_errors_own_words(
    error: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = SweepId("betavae_beta", "smoke")
    with Ledger(home / "ledger.db", home / "storage") as ledger:
        words = sweep_spec("beta_vae")
        ledger.register_sweep(sweep, words, [Draw(0, {"beta": 4.0}, (Member("k", 3, STEPS, SPEC),))])
        number = ledger.begin_attempt(["k"])
        ledger.end_attempt(number, "failed", error)
        ledger.record_failure("k", number, "error", f"Traceback ...\n{error}")
    assert main(["status", "betavae_beta", "--scale", "smoke", "--home", str(home)]) == 0
    assert f"failed: betavae_beta-smoke beta=4 seed 3: {error}" in capsys.readouterr().out


def test_the_front_is_told_and_written_where_asked(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv, plot = tmp_path / "new" / "front.csv", tmp_path / "new" / "front.svg"
    words = ["pareto", "factorvae_gamma", "--scale", "smoke", "--home", str(home)]
    assert main([*words, "--csv", str(csv), "--plot", str(plot), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"summary", "files"}
    assert told["files"] == [str(csv), str(csv.with_name("front_left_out.csv")), str(plot)]
    assert all(Path(file).stat().st_size for file in told["files"])
    assert "gamma=1 " in told["summary"][0]
    assert main(words) == 0
    table, *sentences = capsys.readouterr().out.partition(told["summary"][1])
    assert all(f"gamma={gamma}" in table for gamma in (1, 60))
    assert "".join(sentences).splitlines() == told["summary"][1:]


def test_runs_are_exported(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs.csv"
    words = ["export", "factorvae_gamma", "--scale", "smoke", "--home", str(home), "--runs", str(path)]
    assert main(words) == 0
    assert capsys.readouterr().out == f"Wrote {path}\n"
    assert len(path.read_text().splitlines()) == 1 + 4 * len(METRICS)


def test_what_is_written_is_registered_unless_a_driver_holds_the_home(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pareto", "factorvae_gamma", "--scale", "smoke", "--home", str(home), "--csv"]
    with lock_home(home):
        assert main([*words, str(tmp_path / "held.csv")]) == 0
        assert f"in use by pid {os.getpid()}" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "free.csv")]) == 0
    assert capsys.readouterr().err == ""


def test_a_front_of_a_home_whose_storage_is_elsewhere_is_registered_too(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "storage").rename(tmp_path / "shared")
    words = ["factorvae_gamma", "--scale", "smoke", "--home", str(home)]
    words += ["--storage", str(tmp_path / "shared"), "--csv", str(tmp_path / "front.csv")]
    assert main(["pareto", *words]) == 0
    assert capsys.readouterr().err == ""
    assert not (home / "storage").exists()


# A ledger or a storage that is not there: which one is said, and each has its own way back.

WORDS = ["factorvae_gamma", "--scale", "smoke"]


@pytest.mark.parametrize("command", ["status", "pareto"])
def test_a_lost_ledger_beside_its_storage_is_made_again(
    command: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([command, *WORDS, "--home", str(home)])
    before = capsys.readouterr().out
    (home / "ledger.db").unlink()
    assert main([command, *WORDS, "--home", str(home)]) == 0
    found = capsys.readouterr()
    assert f"Makes {home / 'ledger.db'} from {home / 'storage'}" in found.err
    assert found.out == before


def test_an_empty_ledger_beside_a_full_storage_is_filled(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "ledger.db").unlink()
    (home / "ledger.db").write_bytes(b"")
    assert main(["status", *WORDS, "--home", str(home)]) == 0
    assert "100 %" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["run", "verify", "prune", "rebuild"])
def test_a_storage_that_is_gone_is_named_with_the_file_that_names_it(
    command: str, home: Path, refused: Callable[..., None]
) -> None:
    (home / "storage.path").write_text(f"{home}/gone\n")
    names = [] if command == "rebuild" else WORDS
    refused([command, *names, "--home", home], [f"{home}/gone", f"{home}/storage.path", "does not exist"])
    assert not (home / "gone").exists()


def test_a_missing_home_is_told_from_an_empty_one_and_the_typed_sweep_is_in_the_remedy(
    tmp_path: Path, refused: Callable[..., None]
) -> None:
    again = f"run factorvae_gamma --scale smoke --as x --home {tmp_path}"
    words = ["status", *WORDS, "--as", "x", "--home"]
    refused([*words, tmp_path / "none"], [f"{tmp_path}/none: no such folder.", f"{again}/none"])
    refused([*words, tmp_path], [f"{tmp_path}: no results yet.", again])
    misspelt = ["status", "factorvae_gamma", "--scale", "smok", "--home", tmp_path]
    refused(misspelt, ["Unknown scale 'smok'. Did you mean 'smoke'?"])


def test_a_deleted_export_comes_back_with_the_command_that_verify_prints(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "away" / ".." / "front.csv"
    (tmp_path / "away").mkdir()
    words = [*WORDS, "--home", str(home)]
    assert main(["pareto", *words, "--csv", str(table)]) == 0
    table.unlink()
    capsys.readouterr()
    assert main(["verify", *words]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "front.csv" in line]
    remedy = f"Write it again: python -m sweeper pareto {' '.join(words)} --csv {tmp_path}/front.csv"
    assert line == f"{tmp_path}/front.csv is missing. {remedy}"
    assert main(remedy.partition(" -m sweeper ")[2].split()) == 0
    assert table.exists()


def test_an_undelivered_sweep_is_sent_again_with_the_command_that_was_typed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sync", *WORDS, "--home", str(home), "--tracking-uri", "http://127.0.0.1:9"]
    assert main(words) == 3
    said = capsys.readouterr().err
    assert f"When the server answers: python -m sweeper {' '.join(words)}\n" in said
    assert "Not in MLflow yet: 7 entries (one per sweep, draw and run)." in said
