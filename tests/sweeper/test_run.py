"""Sweeps trained through Ray at smoke scale: what a person types, the answer, and what typing again does."""

import csv
import json
import shutil

import pytest

from sweeper.home import Home
from sweeper.records import Records, SweepId
from sweeper.verify import check

BOTH = ("factorvae_gamma", "betavae_beta")
GAMMA, BETA = (SweepId(name, "smoke") for name in BOTH)
COUNTS = {"trained", "already_done", "failed", "diverged", "steps_trained", "tracking_pending"}
NO_MLFLOW = ("--tracking-uri", "http://127.0.0.1:9")

pytestmark = pytest.mark.filterwarnings(
    # Ray's own, on joining a cluster.
    "ignore",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home.at(tmp_path_factory.mktemp("run") / "home")


@pytest.fixture(scope="module")
def first(home, start_driver, request):
    """Both sweeps in one launch, as a person would, on a Ray that the driver starts itself."""
    driver = start_driver("run", *BOTH, "--scale", "smoke", "--home", home.path, *NO_MLFLOW, "--json")
    out, err = driver.communicate()
    return driver.returncode, out, err
