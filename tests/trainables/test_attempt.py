import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from trainables import blocks, evaluation, plugins, scoring
from trainables.attempt import Attempt, Block, Start
from trainables.blocks import unpack_arrays
from trainables.config import Schedule
from trainables.encoding import Encoding
from trainables.engine import Pack, ResolvedRun
from trainables.errors import UnknownNameError
from trainables.images import Images, Source
from trainables.layout import Layout
from trainables.models import factor_vae
from trainables.pixels import Levels

pytestmark = pytest.mark.usefixtures("arithmetic")

METRICS = ("recon_error", "recon_mse", "kl", "factor_vae_score", "gaussian_tc")
"""One that needs reconstructions, one with several values, one that draws votes, one that needs no labels."""

SCHEDULE = Schedule(steps=50, report_every=8, evaluate_every=20, metrics=METRICS)
REPORTS = {8, 16, 24, 32, 40, 48, 50}
EVALUATIONS = {20, 40, 50}
OVERFLOW = {"beta": 3e38}
"""A weight at which the first step's gradients overflow."""


@pytest.fixture(scope="module")
def runs(small_run: Callable[..., ResolvedRun]) -> list[ResolvedRun]:
    return [small_run("factor_vae", seed, {"gamma": gamma}) for seed, gamma in ((0, 0), (7, 10), (1, 40))]


def worked(
    runs: list[ResolvedRun],
    images: Images,
    seconds: float,
    schedule: Schedule = SCHEDULE,
    start: Start | None = None,
) -> list[Block]:
    """All blocks of an attempt that ends by itself."""
    trying = Attempt(1, runs, schedule, images, start)
    done = []
    while not trying.is_done:
        block = trying.work(seconds)
        done.append(dataclasses.replace(block, blobs={key: dict(blob) for key, blob in block.blobs.items()}))
        assert len(done) <= schedule.steps
    return done


def values_of(some_blocks: list[Block]) -> dict[tuple[str, int, str], float]:
    """Every point but for its time."""
    points = [point for block in some_blocks for point in block.manifest.points]
    values = {(point.key, point.step, point.name): point.value for point in points}
    assert len(values) == len(points)
    return values


def arrays_of(some_blocks: list[Block], name: str) -> dict[str, bytes]:
    """A slice of each run, of the last block that has one."""
    return {key: blob[name] for block in some_blocks for key, blob in block.blobs.items() if name in blob}


@pytest.fixture(scope="module")
def whole(runs: list[ResolvedRun], sprites: Images) -> list[Block]:
    """One block from beginning to end."""
    return worked(runs, sprites, 1000.0)


def test_one_block_holds_everything_when_time_allows(whole: list[Block], runs: list[ResolvedRun]) -> None:
    (block,) = whole
    manifest = block.manifest
    assert (manifest.attempt, manifest.index, manifest.start_step, manifest.end_step) == (1, 0, 0, 50)
    assert [(entry.key, entry.seed) for entry in manifest.runs] == [(run.key, run.spec.seed) for run in runs]
    for entry, run in zip(manifest.runs, runs, strict=True):
        assert (entry.status, entry.step, entry.horizon, entry.first_bad_step) == ("done", 50, 50, None)
        assert entry.spec["fields"]["gamma"] == cast(factor_vae.Config, run.config).gamma
        assert entry.spec["fields"]["discriminator.adam.beta1"] == 0.5
        assert (entry.spec["model"], entry.spec["recipe"]) == ("factor_vae", "sprites (rendered v1)")
    parents = {name.partition("/")[0] for name in manifest.metric_identities}
    assert parents == set(METRICS)
    assert set(manifest.metric_identities) == {
        p.name for p in manifest.points if not p.name.startswith("train/")
    }
    assert all("images=1536" in name for name in manifest.metric_identities.values())


@pytest.mark.parametrize("seconds", [1000.0, 0.0, 0.01])
def test_points_fall_on_the_steps_of_the_schedule_wherever_blocks_end(
    runs: list[ResolvedRun], sprites: Images, whole: list[Block], seconds: float
) -> None:
    done = worked(runs, sprites, seconds)
    values = values_of(done)
    for run in runs:
        steps = {
            is_report: {
                step
                for key, step, name in values
                if key == run.key and name.startswith("train/") == is_report
            }
            for is_report in (True, False)
        }
        assert steps == {True: REPORTS, False: EVALUATIONS}
    for name in (
        "train/loss",
        "train/recon",
        "train/kl",
        "train/tc",
        "recon_error",
        "factor_vae_score",
        "kl/dim_5",
    ):
        assert (runs[0].key, 50, name) in values
    assert (values, arrays_of(done, "state")) == (values_of(whole), arrays_of(whole, "state"))
    for name in ("encoding", "weights", "pictures"):
        assert arrays_of(done, name) == arrays_of(whole, name)


def test_blocks_join_without_gaps(runs: list[ResolvedRun], sprites: Images) -> None:
    done = [block.manifest for block in worked(runs, sprites, 0.0)]
    assert len(done) >= 7
    assert [manifest.index for manifest in done] == list(range(len(done)))
    assert [manifest.start_step for manifest in done[1:]] == [manifest.end_step for manifest in done[:-1]]
    assert (done[0].start_step, done[-1].end_step) == (0, 50)
    for manifest in done:
        assert {entry.step for entry in manifest.runs} == {manifest.end_step}
        assert {entry.status for entry in manifest.runs} == {"done" if manifest is done[-1] else "running"}
        assert all(manifest.start_step < point.step <= manifest.end_step for point in manifest.points)


def test_points_and_results_do_not_depend_on_neighbors(
    runs: list[ResolvedRun], sprites: Images, whole: list[Block]
) -> None:
    lone = worked(runs[1:2], sprites, 1000.0)
    key = runs[1].key
    assert values_of(lone) == {place: value for place, value in values_of(whole).items() if place[0] == key}
    assert lone[0].blobs == {key: whole[0].blobs[key]}


def test_an_attempt_goes_on_exactly_from_any_block(
    runs: list[ResolvedRun], sprites: Images, whole: list[Block], tmp_path: Path
) -> None:
    first = Attempt(1, runs, SCHEDULE, sprites)
    committed = []
    while not first.is_done and first.pack.step < 21:
        committed.append(first.work(0.0))
    step = first.pack.step
    path = blocks.write_block(tmp_path, committed[-1].manifest, committed[-1].blobs)
    slices = {entry.key: entry.slices[blocks.STATE] for entry in blocks.read_manifest(path).runs}
    order = [runs[2], runs[0]]
    states = tuple(unpack_arrays(blocks.read_slice(path.parent, slices[run.key])) for run in order)
    rest = worked(order, sprites, 0.0, start=Start(step, states))
    assert rest[0].manifest.start_step == step
    keys = {run.key for run in order}
    found = {place: value for place, value in values_of([*committed, *rest]).items() if place[0] in keys}
    assert found == {place: value for place, value in values_of(whole).items() if place[0] in keys}
    final = arrays_of(whole, "state")
    assert arrays_of(rest, "state") == {key: final[key] for key in keys}


def test_a_run_can_be_continued_to_a_later_horizon(
    runs: list[ResolvedRun], sprites: Images, whole: list[Block]
) -> None:
    early = worked(runs, sprites, 1000.0, dataclasses.replace(SCHEDULE, steps=40))
    states = arrays_of(early, "state")
    start = Start(40, tuple(unpack_arrays(states[run.key]) for run in runs))
    late = worked(runs, sprites, 1000.0, start=start)
    assert values_of([*early, *late]) == values_of(whole)
    assert arrays_of(late, "state") == arrays_of(whole, "state")


def test_looking_more_often_changes_no_number(
    runs: list[ResolvedRun], sprites: Images, whole: list[Block]
) -> None:
    often = worked(runs, sprites, 1000.0, Schedule(50, 1, 10, ("recon_mse",)))
    assert arrays_of(often, "state") == arrays_of(whole, "state")
    found, expected = values_of(often), values_of(whole)
    shared = set(found) & set(expected)
    assert len(shared) == 3 * (len(REPORTS) * 4 + len(EVALUATIONS))
    assert all(found[place] == expected[place] for place in shared)


def test_an_unknown_metric_stops_before_any_training(runs: list[ResolvedRun], sprites: Images) -> None:
    with pytest.raises(UnknownNameError, match="Unknown metric 'mug'"):
        Attempt(1, runs, dataclasses.replace(SCHEDULE, metrics=("mug",)), sprites)


# What is kept.


def test_finished_runs_keep_an_encoding_weights_and_pictures(
    runs: list[ResolvedRun], whole: list[Block], sprites: Images
) -> None:
    for run in runs:
        kept = whole[0].blobs[run.key]
        assert set(kept) == {blocks.STATE, *blocks.KEPT}
        encoding = Encoding.from_bytes(kept["encoding"])
        assert (encoding.data, encoding.factor_sizes) == (sprites.recipe, sprites.factor_sizes)
        np.testing.assert_array_equal(encoding.rows_N, np.arange(1536))
        np.testing.assert_array_equal(encoding.factors_NK, sprites.factors(encoding.rows_N))
        assert encoding.logvar_ND is not None
        assert encoding.mu_ND.shape == encoding.logvar_ND.shape == (1536, 6)
        assert not encoding.discrete_D.any()
        pictures = unpack_arrays(kept["pictures"])
        assert {name: picture.shape for name, picture in pictures.items()} == {
            "inputs": (8, 1, 16, 16),
            "reconstructions": (8, 1, 16, 16),
            "traversal": (6, 7, 1, 16, 16),
        }
        assert all(picture.dtype == np.uint8 for picture in pictures.values())


def relu_layers(weights: dict[str, np.ndarray], names: tuple[str, ...], h: np.ndarray) -> np.ndarray:
    for name in names:
        h = h @ weights[f"{name}.weight"].astype(np.float64) + weights[f"{name}.bias"]
        h = h if name.endswith("out") else np.maximum(h, 0)
    return h


def test_the_kept_weights_explain_the_encoding_and_the_pictures(
    runs: list[ResolvedRun], whole: list[Block], sprites: Images
) -> None:
    kept = whole[0].blobs[runs[2].key]
    weights, pictures = unpack_arrays(kept["weights"]), unpack_arrays(kept["pictures"])
    encoding = Encoding.from_bytes(kept["encoding"])
    assert encoding.logvar_ND is not None
    assert encoding.recon_nats_N is not None
    x_NP = sprites.at(torch.arange(1536)).flatten(1).double().numpy()
    codes = relu_layers(weights, ("encoder.hidden1", "encoder.hidden2", "encoder.out"), x_NP)
    mu_ND, logvar_ND = codes[:, :6], codes[:, 6:]
    np.testing.assert_allclose(encoding.mu_ND, mu_ND, atol=1e-5)
    np.testing.assert_allclose(encoding.logvar_ND, logvar_ND, atol=1e-5)
    kl_ND = 0.5 * (np.exp(logvar_ND) + mu_ND**2 - logvar_ND - 1)
    np.testing.assert_allclose(encoding.kl_D, kl_ND.mean(0), rtol=1e-4, atol=1e-7)

    def decoded(z: np.ndarray) -> np.ndarray:
        logits = relu_layers(weights, ("decoder.hidden1", "decoder.hidden2", "decoder.out"), z)
        p: np.ndarray = 1 / (1 + np.exp(-logits))
        return p

    np.testing.assert_allclose(encoding.recon_mse_N, ((decoded(mu_ND) - x_NP) ** 2).mean(1), rtol=1e-4)
    # One z is sampled, so the mean over 1,536 images has a standard error of a few hundredths of a nat.
    p_NP = decoded(mu_ND + np.exp(logvar_ND / 2) * np.random.default_rng(0).normal(size=mu_ND.shape))
    nats = -(x_NP * np.log(p_NP) + (1 - x_NP) * np.log1p(-p_NP)).sum(1)
    error = nats.std() / np.sqrt(1536) * np.sqrt(2)
    assert abs(encoding.recon_nats_N.mean() - nats.mean()) < 4 * error + 1e-3

    shown = [(image == pictures["inputs"].reshape(8, 1, 256)).all(2) for image in np.rint(x_NP * 255)[None]]
    row_8 = shown[0].argmax(1)
    rebuilt_8P = decoded(mu_ND[row_8]).reshape(8, 256) * 255
    assert np.abs(pictures["reconstructions"].reshape(8, 256) - rebuilt_8P).max() < 0.51
    for d in range(6):
        z_7D = np.repeat(mu_ND[row_8[4:5]], 7, axis=0)
        z_7D[:, d] = np.linspace(-2, 2, 7)
        moved_7P = decoded(z_7D) * 255
        assert np.abs(pictures["traversal"][d].reshape(7, 256) - moved_7P).max() < 0.51


def test_the_last_points_are_the_metrics_of_the_kept_encoding(
    runs: list[ResolvedRun], whole: list[Block]
) -> None:
    values = values_of(whole)
    for run in runs:
        encoding = Encoding.from_bytes(whole[0].blobs[run.key]["encoding"])
        for metric in METRICS:
            module = plugins.load("trainables.metrics", metric, "metric")
            for name, value in module.score(encoding, scoring.metric_generator(metric)).items():
                assert values[run.key, 50, name] == value


def test_the_noise_of_an_evaluation_is_the_same_at_every_step_and_differs_between_runs_and_batches(
    runs: list[ResolvedRun], sprites: Images
) -> None:
    pack, shape = Pack(runs, sprites), torch.Size((256, 6))
    noises = [evaluation._noise(pack, start, shape) for start in (0, 256)]
    assert len(torch.cat(noises).flatten(1).unique(dim=0)) == 6
    pack.advance(3)
    assert all(
        torch.equal(noise, evaluation._noise(pack, start, shape))
        for noise, start in zip(noises, (0, 256), strict=True)
    )
    once, again = evaluation.encodings(pack), evaluation.encodings(pack)
    assert [encoding.to_bytes() for encoding in once] == [encoding.to_bytes() for encoding in again]


def test_evaluation_rows_are_all_or_ten_thousand_fixed_ones() -> None:
    for num_images in (1, 1536, 10_000):
        np.testing.assert_array_equal(evaluation.evaluation_rows(num_images), np.arange(num_images))
    rows = evaluation.evaluation_rows(50_000)
    assert len(np.unique(rows)) == 10_000
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, evaluation.evaluation_rows(50_000))
    assert np.abs(np.bincount(rows // 5_000) - 1_000).max() < 4.5 * np.sqrt(1_000 * 0.9)


def test_a_set_without_factors_and_with_an_odd_size_is_encoded_whole(
    small_run: Callable[..., ResolvedRun],
) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (301, 3 * 5 * 7), dtype=np.uint8)
    pixels = partial(Levels, torch.from_numpy(stored), 255)
    images = Source("noise", (3, 5, 7), len(stored), pixels).load(torch.device("cpu"))
    pack = Pack([small_run("beta_vae", seed, {"vae.latent_dim": 3}) for seed in range(2)], images)
    encodings = evaluation.encodings(pack)
    assert [encoding.mu_ND.shape for encoding in encodings] == [(301, 3)] * 2
    assert encodings[0].factors_NK.shape == (301, 0)
    assert evaluation.pictures(pack)[1]["traversal"].shape == (3, 7, 3, 5, 7)


# Divergence.


def test_a_diverged_run_leaves_one_entry_and_no_point_and_its_neighbors_go_on(
    small_run: Callable[..., ResolvedRun], sprites: Images, tmp_path: Path
) -> None:
    good, bad = small_run("beta_vae", 0), small_run("beta_vae", 1, OVERFLOW)
    done = worked([bad, good], sprites, 0.0)
    entries = [entry for block in done for entry in block.manifest.runs if entry.key == bad.key]
    assert [(entry.status, entry.first_bad_step, entry.step) for entry in entries] == [("diverged", 0, 0)]
    assert bad.key in {entry.key for entry in done[0].manifest.runs}
    assert not any(bad.key in block.blobs for block in done)
    values = values_of(done)
    assert {key for key, _, _ in values} == {good.key}
    assert values == values_of(worked([good], sprites, 1000.0))
    assert done[-1].manifest.runs[0].status == "done"
    for block in done:
        blocks.write_block(tmp_path, block.manifest, block.blobs)


def test_a_run_that_diverges_on_the_way_keeps_its_earlier_points_and_says_when(
    runs: list[ResolvedRun], sprites: Images, whole: list[Block]
) -> None:
    pack = Pack(runs, sprites)
    pack.advance(22)
    states = pack.states()
    states[1]["discriminator.values"][0] = np.nan
    rest = worked(runs, sprites, 1000.0, start=Start(22, tuple(states)))
    statuses = {entry.key: (entry.status, entry.first_bad_step) for entry in rest[0].manifest.runs}
    assert statuses == {
        runs[0].key: ("done", None),
        runs[1].key: ("diverged", 22),
        runs[2].key: ("done", None),
    }
    expected = {
        place: v for place, v in values_of(whole).items() if place[0] != runs[1].key and place[1] > 22
    }
    assert values_of(rest) == expected


def test_an_attempt_ends_when_all_runs_have_diverged(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    runs = [small_run("beta_vae", seed, OVERFLOW) for seed in range(2)]
    trying = Attempt(3, runs, dataclasses.replace(SCHEDULE, steps=10**9), sprites)
    block = trying.work(5.0)
    assert trying.is_done
    assert trying.pack.step < 1000
    assert [entry.status for entry in block.manifest.runs] == ["diverged"] * 2
    assert (block.manifest.points, block.blobs) == ((), {})


# What storage takes.


def test_every_block_is_accepted_and_read_back(
    runs: list[ResolvedRun], sprites: Images, tmp_path: Path
) -> None:
    done = worked(runs, sprites, 0.0)
    for block in done:
        path = blocks.write_block(tmp_path, block.manifest, block.blobs)
        found = blocks.read_manifest(path)
        assert found.points == block.manifest.points
        for entry in found.runs:
            read = {name: blocks.read_slice(path.parent, part) for name, part in entry.slices.items()}
            assert read == block.blobs[entry.key]
    assert len(Layout(tmp_path).manifests()) == len(done)


def test_states_that_are_asked_for_too_late_are_refused(runs: list[ResolvedRun], sprites: Images) -> None:
    trying = Attempt(1, runs, SCHEDULE, sprites)
    block = trying.work(0.0)
    key = runs[0].key
    assert "state" in block.blobs[key]
    trying.work(0.0)
    with pytest.raises(RuntimeError, match="are gone"):
        block.blobs[key]
