"""The benchmark of metrics, at a small size."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import metrics
from trainables import contracts, scoring


def test_the_codes_are_factors_with_noise() -> None:
    encoding = metrics.codes("laptop", 0)
    assert encoding.mu_ND.shape == (1536, 6)
    assert not np.array_equal(encoding.mu_ND, metrics.codes("laptop", 1).mu_ND)
    generator = scoring.metric_generator("factor_vae_score")
    assert contracts.metric("factor_vae_score").score(encoding, generator) == {"factor_vae_score": 1.0}


def test_each_metric_is_timed_on_each_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(metrics.SETS, "dSprites", ((("shape", 3), ("scale", 6)), 4))
    monkeypatch.setattr(metrics, "ON_ALL_IMAGES", ("kl", "factor_vae_score"))
    out = tmp_path / "metrics.json"
    assert metrics.main(["--runs", "2", "--only", "dSprites", "--out", str(out)]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == [
        "kl",
        "factor_vae_score",
        "all",
    ]
    rows = json.loads(out.read_text())["rows"]
    assert [row["metric"] for row in rows] == ["kl", "factor_vae_score"]
    assert all(0 < row["ms_per_run"] <= row["ms_most"] for row in rows)
