"""Equality to the last bit, or nearly: replayed and eager steps, sizes and slots of packs, other modules, the CPU."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from benchmarks.gpu.kit import MODELS, Bench, Row
from benchmarks.plain import Plain, vae_layers
from trainables import arithmetic
from trainables.config import Precision
from trainables.engine import Pack, ResolvedRun
from trainables.ladder import LADDER

SECONDS = 75.0
STEPS = 12


def rows(bench: Bench) -> Iterator[Row]:
    """Yield rows of four kinds, see the functions below."""
    parts = {
        "graph = eager": _replayed(bench),
        "size and slot": _slots(bench, "tf32"),
        "plain modules": _plain(bench),
        "the CPU": _other_device(bench),
    }
    if not bench.is_rehearsal:
        parts["size and slot in fp32"] = _slots(bench, "fp32")
    for what, part in parts.items():
        try:
            yield from part
        except RuntimeError as error:  # the other parts are still useful
            yield {"what": what, "error": str(error).splitlines()[0]}


def _digest(pack: Pack, r: int = 0) -> str:
    state = pack.state(r)
    return hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest()[:12]


def _replayed(bench: Bench) -> Iterator[Row]:
    """Compare the steps of a graph with eager ones, bit for bit, and an eager pack with its repetition."""
    for model in MODELS:
        bench.forget()
        digests = []
        for launch in ("graph", "eager", "eager"):
            pack = bench.pack(model, 2 if bench.is_rehearsal else 8, launch=launch)
            pack.advance(2 * STEPS)
            digests.append(_digest(pack))
            del pack
            bench.forget()
        yield {
            "what": "graph = eager",
            "model": model,
            "is_equal": digests[0] == digests[1],
            "is_repeatable": digests[1] == digests[2],
        }


def _slots(bench: Bench, precision: Precision) -> Iterator[Row]:
    """Compare the bits of one run after some steps in packs of many sizes, in first and last place, with other neighbors."""
    arithmetic.set_arithmetic(precision, 1)
    sizes = (2, 3) if bench.is_rehearsal else LADDER
    for model in ("factor_vae", "beta_vae") if precision == "tf32" else ("factor_vae",):
        mine = bench.run(model, 7, precision)
        for size in sizes:
            if bench.left_s < 5:
                return
            bench.forget()
            others = [bench.run(model, 100 + seed, precision) for seed in range(size - 1)]
            found = [_trained(bench, [mine, *others], 0), _trained(bench, [*others[::-1], mine], size - 1)]
            yield {
                "what": "size and slot",
                "model": model,
                "precision": precision,
                "runs": size,
                "first": found[0],
                "last": found[1],
                "is_equal": found[0] == found[1],
            }


def _trained(bench: Bench, runs: Sequence[ResolvedRun], r: int) -> str:
    bench.forget()
    pack = Pack(runs, bench.images, size=len(runs), launch="graph")
    pack.advance(STEPS)
    return _digest(pack, r)


def _plain(bench: Bench) -> Iterator[Row]:
    """Compare a run of a pack with ordinary modules after one step, by gradients, since Adam hides their size."""
    for model in ("factor_vae",) if bench.is_rehearsal else ("factor_vae", "beta_vae"):
        for precision in ("fp32", "tf32", "bf16"):
            bench.forget()
            pack = bench.pack(model, 2, precision, launch="eager")
            tensors = {
                name: value
                for adam in pack.model.optimizers.values()
                for name, value in adam.parameters.tensors.items()
            }
            arithmetic.set_arithmetic("fp32", 1)
            plain = Plain(model, pack.runs[1].config, bench.images.shape).to(bench.device)
            plain.load({name: value[1].detach() for name, value in tensors.items()})
            plain.prepare()
            drawn = pack.gathered(
                {
                    name: v[0]
                    for name, v in pack.generate_inputs(
                        torch.zeros(1, dtype=torch.int64, device=bench.device)
                    ).items()
                }
            )
            plain.step({name: value[1] for name, value in drawn.items()})
            arithmetic.set_arithmetic(precision, 1)
            pack.advance(1)
            gradients = pack.model.optimizers["vae"].parameters.gradients
            errors = {
                name: _error(gradients[f"{name}.weight"][1], gradient)
                for name, gradient in _gradients(plain).items()
            }
            worst = max(errors, key=lambda name: errors[name])
            yield {
                "what": "gradients against plain modules in fp32",
                "model": model,
                "precision": precision,
                "error": float(f"{errors[worst]:.2e}"),
                "layer": worst,
            }


def _gradients(plain: Plain) -> dict[str, torch.Tensor]:
    """Return the gradients of the weights of encoder and decoder, by layer."""
    names = vae_layers(plain.config.vae, plain.vae.image)
    found = {}
    for name in names:
        gradient = plain.vae.layers[name.replace(".", "_")].weight.grad
        assert isinstance(gradient, torch.Tensor)
        found[name] = gradient
    return found


def _error(found: torch.Tensor, right: torch.Tensor) -> float:
    """Return the relative error in the norm."""
    if found.ndim == 2:
        found = found.T
    return float((found - right).norm() / right.norm().clamp_min(1e-30))


def _other_device(bench: Bench) -> Iterator[Row]:
    """Compare a run on this device with the same run on the CPU, step by step."""
    if bench.is_rehearsal:
        cpu_images = bench.images
    else:
        cpu_images = bench.run("beta_vae", 0).source.load(torch.device("cpu"))
    for model in ("beta_vae", "factor_vae"):
        bench.forget()
        arithmetic.set_arithmetic("fp32", 16)
        runs = [bench.run(model, seed, "fp32") for seed in range(2)]
        here, there = Pack(runs, bench.images, size=2), Pack(runs, cpu_images, size=2)
        for steps in (1, 4, 15):
            here.advance(steps)
            there.advance(steps)
            states = here.state(0), there.state(0)
            values = {name: each for name, each in states[0].items() if name.endswith(".values")}
            error = max(
                float(np.linalg.norm(each - states[1][name]) / np.linalg.norm(each))
                for name, each in values.items()
            )
            yield {
                "what": "parameters against the CPU in fp32",
                "model": model,
                "steps": here.step,
                "error": float(f"{error:.2e}"),
                "recon": [round(pack.statistics()[0]["recon"], 3) for pack in (here, there)],
            }
            if bench.left_s < 5:
                return
