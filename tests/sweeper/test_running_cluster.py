"""A cluster that runs: the plain command joins it, and nodes that come and go are used and given up."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweeper.conftest import ROOT, end_session
from trainables import blocks
from trainables.layout import Layout

pytestmark = pytest.mark.system

WORDS = ["run", "factorvae_gamma", "--scale", "smoke"]

GROWING = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
print(cluster.address, flush=True)
for line in sys.stdin:
    if line == "add\\n":
        node = cluster.add_node(num_cpus=1)
    else:
        cluster.remove_node(node, allow_graceful=False)
    print(line, end="", flush=True)
"""


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "SWEEPER_ADDRESS"}
    return kept | {"RAY_AUTH_MODE": "disabled"} | more


def run(*words: object, env: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sweeper", *WORDS, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=env,
    )


def num_raylets(folder: str) -> int:
    """How many nodes of Ray keep their files in a folder."""
    found = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            program, *words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            found += program.endswith("/raylet") and any(folder in word for word in words)
    return found


@pytest.fixture
def folder() -> Iterator[str]:
    """A folder of Ray's files; paths of its sockets end at 107 bytes."""
    made = tempfile.mkdtemp(prefix="ray-")
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_the_plain_command_joins_what_ray_start_began(tmp_path: Path, folder: str) -> None:
    env = environment(RAY_TMPDIR=folder)
    size = ["--num-cpus=4", "--num-gpus=2", "--port=0", "--include-dashboard=false"]
    head = subprocess.Popen(
        [Path(sys.executable).with_name("ray"), "start", "--head", "--block", *size],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    try:
        left = Path(folder, "ray", "ray_current_cluster")
        while not left.exists() or not left.read_text():
            assert head.poll() is None
            time.sleep(0.1)
        driver = run("--home", tmp_path / "home", env=env)
        out, said = driver.communicate()
        assert driver.returncode == 0, said
        assert said.startswith(f"Ray cluster at {left.read_text()}: 1 node, 2 GPUs, 4 cores.\n"), said
        assert "this cluster asks for no token" in said
        assert "4 runs trained" in out
        assert num_raylets(folder) == 1
    finally:
        end_session(head)
    found = [blocks.read_manifest(path) for path in Layout(tmp_path / "home" / "storage").manifests()]
    assert {manifest.provenance["gpus"] for manifest in found} <= {"0", "1"}


def test_a_node_that_joins_takes_packs_soon_and_one_that_leaves_gives_its_pack_back(
    tmp_path: Path, folder: str
) -> None:
    env = environment(RAY_TMPDIR=folder)
    nodes = subprocess.Popen(
        [sys.executable, "-c", GROWING],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    assert nodes.stdin
    assert nodes.stdout

    def tell(word: str) -> None:
        assert nodes.stdin
        assert nodes.stdout
        print(word, file=nodes.stdin, flush=True)
        assert nodes.stdout.readline() == f"{word}\n"

    layout = Layout(tmp_path / "home" / "storage")
    try:
        address = nodes.stdout.readline().strip()
        words = ["--seeds", "0-39", "--set", "steps=400", "--as", "grow", "--address", address]
        driver = run("--home", tmp_path / "home", *words, env=env)
        while not layout.manifests():
            assert driver.poll() is None
            time.sleep(0.1)
        assert layout.newest_attempt() == 1, "there is room for one"
        tell("add")
        begun_s = time.monotonic()
        while layout.newest_attempt() < 2:
            assert driver.poll() is None
            time.sleep(0.1)
        assert time.monotonic() - begun_s < 10
        while not layout.manifests(2):
            assert driver.poll() is None
            time.sleep(0.1)
        tell("remove")
        out, said = driver.communicate()
        assert driver.returncode == 0, said
        assert "80 runs trained, 0 done before, 0 failed" in out
    finally:
        end_session(nodes)
    alone = run("--home", tmp_path / "alone", *words[:-2], "--no-ray", env=env)
    _, said = alone.communicate()
    assert alone.returncode == 0, said
    csv = Path("exports", "factorvae_gamma-smoke-grow.csv")
    assert (tmp_path / "home" / csv).read_bytes() == (tmp_path / "alone" / csv).read_bytes()
