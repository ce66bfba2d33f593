"""Options that say how your own images are read, and the text that carries them."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables import reading, sources
from trainables.command_line import build_parser, data_of
from trainables.config import RunSpec, static_key
from trainables.errors import InputError
from trainables.models import beta_vae
from trainables.reading import Reading

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SIZES = st.lists(st.integers(1, 99), max_size=4).map(tuple)
READINGS = st.one_of(
    st.builds(Reading, images=NAMES, factors=NAMES),
    st.builds(Reading, images=NAMES, factor_sizes=SIZES),
    st.builds(Reading, labels=NAMES, follow_links=st.booleans()),
)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="?"), min_size=1), READINGS)
def test_a_path_and_how_to_read_it_come_back_from_one_text(place: str, how: Reading) -> None:
    assert reading.split(reading.join(place, how)) == (place, how)
    assert (reading.join(place, how) == place) == (how == Reading())


@given(
    READINGS.filter(
        lambda how: not any(text.startswith("-") for text in (how.images, how.factors, how.labels))
    )
)
def test_options_as_they_are_typed_give_the_same_reading(how: Reading) -> None:
    text = reading.typed(reading.join("./a.npz", how))
    options = build_parser(None).parse_args(["beta_vae", "--steps", "1", *shlex.split(text)])
    assert (options.data, options.images, options.factors) == ("./a.npz", how.images, how.factors)
    assert (options.factor_sizes, options.labels) == (how.factor_sizes, how.labels)
    assert options.follow_links == how.follow_links


@pytest.mark.parametrize("data", ["sprites", "./what?.npz", "/a/b?c=d.npz", "./a.npz?", "./a.npz?images"])
def test_data_without_options_stay_what_they_were(data: str) -> None:
    """So that old records are read as before, and packs of runs that wait are formed as before."""
    assert reading.split(data) == (data, Reading())
    assert reading.join(data, Reading()) == data
    assert reading.typed(data) == f"--data {shlex.quote(data)}"


def test_the_text_is_short_and_readable() -> None:
    how = Reading("train/x", "latents classes")
    assert reading.join("/a/b.h5", how) == "/a/b.h5?images=train/x&factors=latents%20classes"
    assert reading.join("/a/b.npy", Reading(factor_sizes=(3, 6, 40))) == "/a/b.npy?factor-sizes=3,6,40"
    assert (
        reading.join("/a", Reading(labels="/a/b.csv", follow_links=True))
        == "/a?labels=/a/b.csv&follow-links=yes"
    )


def test_runs_of_other_arrays_are_never_in_one_pack() -> None:
    keys = {
        static_key(RunSpec("beta_vae", data, {}, 0), beta_vae.Config())
        for data in ("/a.npz", "/a.npz?images=a", "/a.npz?images=b")
    }
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            "--data sprites --images x",
            "--images is for images of your own; sprites is a data set with a fixed",
        ),
        ("--data ./no.npz --images x", "--data ./no.npz: no such file or folder."),
        ("--data . --labels no.csv", "--labels no.csv: no such file or folder.\nCheck the path."),
        (
            "--data {0} --labels in.csv",
            "--labels in.csv: no such file or folder.\nFor the one beside the pictures give {0}/in.csv",
        ),
        ("--data . --factors no.npy", "--factors no.npy: no such file or folder."),
        (
            "--data . --factors x --factor-sizes 3",
            "--factors and --factor-sizes both give the ground truth.\nLeave out",
        ),
        ("--data . --labels x --factor-sizes 3", "--factor-sizes and --labels both give the ground truth."),
        ("--data . --factor-sizes 3,x", "--factor-sizes 3,x: expected numbers of values, for example"),
        ("--data . --factor-sizes 0", "--factor-sizes 0: expected numbers of values"),
        (
            "--data ./a?images=x&image=y",
            "'image' is not an option of images.\nValid: images, factors, factor-sizes,",
        ),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path: Path, options: str, said: str) -> None:
    (tmp_path / "in.csv").touch()
    with pytest.raises(InputError) as refusal:
        data_of(
            build_parser(None).parse_args(["beta_vae", "--steps", "1", *options.format(tmp_path).split()])
        )
    assert said.format(tmp_path) in str(refusal.value)


def test_options_without_data_are_refused() -> None:
    with pytest.raises(InputError, match=r"--factors needs images of your own\.\nAdd their path"):
        sources.with_reading(None, Reading(factors="y"))


def test_paths_become_absolute_and_options_override_those_in_the_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.npz", "y.npy", "b.csv"):
        (tmp_path / name).touch()
    assert sources.absolute("./a.npz") == f"{tmp_path}/a.npz"
    assert (
        sources.absolute("./a.npz?images=x&factors=y.npy")
        == f"{tmp_path}/a.npz?images=x&factors={tmp_path}/y.npy"
    )
    assert sources.absolute(".?labels=b.csv") == f"{tmp_path}?labels={tmp_path}/b.csv"
    assert sources.absolute(".?labels=folders") == f"{tmp_path}?labels=folders"
    found = sources.with_reading("./a.npz?images=x", Reading(images="z", factors="y"))
    assert found == f"{tmp_path}/a.npz?images=z&factors=y"
    assert sources.with_reading("./a.npz", Reading()) == "./a.npz"
