"""The one-pass Adam, in Triton's interpreter: its formula, and that a run that ended stays."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import torch
from trainables import kernels, stacked

def trained(optimizer, beta1):
    generator = torch.Generator().manual_seed(0)
    parameters = stacked.Parameters({"a.weight": (5, 7), "b": (1500,)}, 3)
    parameters.values_RP.normal_(generator=generator)
    adam = stacked.Adam(parameters, 3e-3, beta1, 0.999, 1e-8)
    alive_R = torch.ones(3, dtype=torch.bool)
    with kernels.using(torch.device("cpu"), optimizer=optimizer):
        for step in range(30):
            parameters.gradients_RP.normal_(generator=generator)
            if step >= 10:
                parameters.gradients_RP[1] = float("nan")
            if step == 10:
                stood = parameters.values_RP[1].clone()
            alive_R = adam.step(alive_R)
    assert alive_R.tolist() == [True, False, True]
    assert torch.equal(parameters.values_RP[1], stood)
    return [tensor[[0, 2]] for tensor in (parameters.values_RP, adam.first_moment_RP, adam.second_moment_RP)]

for beta1 in (0.9, 0.0):
    for found, expected in zip(trained("one_pass", beta1), trained("masked", beta1), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
"""


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="needs triton, which CUDA builds of torch bring"
)
def test_one_pass_is_adam_and_leaves_a_run_that_ended() -> None:
    interpreted = {**os.environ, "TRITON_INTERPRET": "1"}
    words = [sys.executable, "-c", PROGRAM]
    ran = subprocess.run(
        words, env=interpreted, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert ran.returncode == 0, ran.stderr
