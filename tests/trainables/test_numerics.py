"""The numerics class: everything that picks kernels makes another one, and nothing else does."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from trainables import kernels, numerics

pytestmark = pytest.mark.usefixtures("arithmetic")

CPU = torch.device("cpu")
NAME = "from trainables import numerics; import torch; print(numerics.numerics_class(torch.device('cpu'), 'fp32', 1))"


def test_threads_and_precision_are_told_apart_and_the_size_of_a_pack_does_not_matter(
    set_threads: Callable[[int], None],
) -> None:
    classes = set()
    for num_threads in (1, 2):
        set_threads(num_threads)
        for precision in ("fp32", "bf16"):
            found = {numerics.numerics_class(CPU, precision, size) for size in (2, 5)}
            assert len(found) == 1
            classes |= found
    assert len(classes) == 4
    assert all(torch.__version__ in name and numerics.processor() in name for name in classes)


@pytest.mark.system
def test_another_process_has_the_same_class_and_one_with_other_kernels_another() -> None:
    words = [sys.executable, "-c", f"torch = __import__('torch'); torch.set_num_threads(1); {NAME}"]
    plain, steered = (
        subprocess.run(
            words, env={**os.environ, **changed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for changed in ({}, {"ATEN_CPU_CAPABILITY": "default"})
    )
    assert plain == numerics.numerics_class(CPU, "fp32", 1)
    assert "ATEN_CPU_CAPABILITY=default" in steered
    if torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        assert steered[-numerics.DIGITS :] != plain[-numerics.DIGITS :]


@pytest.mark.parametrize(
    "name", ["MKL_CBWR", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "CUBLAS_WORKSPACE_CONFIG"]
)
def test_a_variable_that_picks_kernels_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = numerics.numerics_class(CPU, "fp32", 1)
    for harmless in ("MKL_VERBOSE", "ONEDNN_VERBOSE", "OMP_DISPLAY_ENV"):
        monkeypatch.setenv(harmless, "0")
    assert numerics.numerics_class(CPU, "fp32", 1) == plain
    monkeypatch.setenv(name, "X")
    assert numerics.numerics_class(CPU, "fp32", 1) == plain.replace(", check ", f", {name}=X, check ")


def test_the_choice_of_kernels_is_named() -> None:
    plain = numerics.numerics_class(CPU, "fp32", 1)
    assert f", convolutions {kernels.chosen(CPU).convolution}, " in plain
    with kernels.using(CPU, convolution="one_by_one"):
        assert numerics.numerics_class(CPU, "fp32", 1) != plain


@pytest.mark.parametrize("function", ["conv2d", "conv_transpose2d"])
def test_one_bit_of_one_result_changes_the_checksum(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = numerics._checksum.__wrapped__(CPU, "fp32")
    assert plain == numerics._checksum.__wrapped__(CPU, "fp32") == numerics.checksum(CPU, "fp32")
    exact = getattr(F, function)

    def changed(*given: torch.Tensor, **how: int) -> torch.Tensor:
        result: torch.Tensor = exact(*given, **how)
        result.view(-1)[3] = torch.nextafter(result.view(-1)[3], torch.tensor(9.0))
        return result

    monkeypatch.setattr(F, function, changed)
    assert numerics._checksum.__wrapped__(CPU, "fp32") != plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 106\nmodel name\t: Intel(R) Xeon(R), 2.6  GHz\n"
            "stepping\t: 6\n\nprocessor\t: 1\nmodel\t\t: 85\n",
            "Intel(R) Xeon(R) 2.6 GHz (6.106.6)",
        ),
        (
            "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\n",
            "(0x41.0xd0c.0x3)",
        ),
        ("", ""),
    ],
)
def test_the_model_of_the_processor_is_read(text: str, expected: str) -> None:
    assert numerics._described(text) == expected
