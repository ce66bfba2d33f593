"""Steps as a graph: on a CPU a tape of tensor operations stands for CUDA's capture, which records the same."""

import hashlib
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.plain import Plain
from trainables import engine, kernels, plugins, stepping
from trainables.config import Value
from trainables.convolutions import WAYS
from trainables.engine import Pack, ResolvedRun
from trainables.images import Images
from trainables.kernels import Convolution
from trainables.pixels import Levels, Packed

pytestmark = pytest.mark.usefixtures("arithmetic")

CPU = torch.device("cpu")
MODELS = plugins.names("trainables.models")
READS = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique", "item", "equal")
"""Operations whose result Python, or the shape of a tensor, waits for."""


class Tape(TorchDispatchMode):
    """Every operation in order, with the tensors that it read and wrote."""

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)  # mypy excuses untyped calls of torch only by name
        self.operations: list[tuple[OpOverload, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self,
        function: OpOverload,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        """Do it all again in the same memory, as a graph does: Python of the step is not run."""
        with torch.no_grad():
            for function, args, kwargs, result in self.operations:
                again = function(*args, **kwargs)
                for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def memory_of(pack: Pack) -> list[torch.Tensor]:
    """All that a step changes."""
    optimizers = pack.model.optimizers.values()
    tensors = [pack.alive_R, pack._died_at_R, *pack.model.buffers.values(), *pack._last.values()]
    for adam in optimizers:
        tensors += [adam.parameters.values_RP, adam.parameters.gradients_RP, adam.num_steps]
        tensors += [adam.first_moment_RP, adam.second_moment_RP]
    return tensors


def taped(pack: Pack) -> list[Tape]:
    """A pack whose steps are replayed from tapes."""

    def capture(step: Callable[[], None]) -> Callable[[], None]:
        memory = [*memory_of(pack), stepper._place]
        before = [tensor.clone() for tensor in memory]
        tape = Tape()
        with tape:
            step()
        assert not [f for f, *_ in tape.operations if f._schema.name.removeprefix("aten::") in READS]
        with torch.no_grad():  # CUDA's capture records, and does nothing yet
            for tensor, value in zip(memory, before, strict=True):
                tensor.copy_(value)
        tapes.append(tape)
        return tape.replay

    tapes: list[Tape] = []
    stepper = pack._stepper = stepping.Graph(pack._chunk, capture)
    return tapes


def digest(pack: Pack) -> str:
    states = [state[name].tobytes() for state in pack.states() for name in sorted(state)]
    return hashlib.sha256(b"".join(states)).hexdigest()


@pytest.mark.parametrize("model", MODELS)
def test_a_replayed_step_is_the_step(
    small_run: Callable[..., ResolvedRun], sprites: Images, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "CHUNK_WORDS_CPU", 25_000)
    runs = [small_run(model, seed) for seed in range(3)]
    eager = Pack(runs, sprites)
    with kernels.using(CPU, optimizer="masked"):
        pack = Pack(runs, sprites)
        tapes = taped(pack)
        # Strides within the warm-up, over its end, and over more steps than are drawn at once.
        for stride in (1, 2, 5, 1, pack._chunk + 3, 1):
            eager.advance(stride)
            pack.advance(stride)
            assert digest(pack) == digest(eager)
            assert pack.statistics() == eager.statistics()
    assert len(tapes) == 2, "one step that reports and one that does not"
    assert pack.first_bad_steps() == [None] * 3


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
@pytest.mark.parametrize("model", ["factor_vae", "beta_vae"])
def test_a_run_stepped_in_place_is_one_in_ordinary_modules(
    small_run: Callable[..., ResolvedRun],
    sprites: Images,
    model: str,
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Twelve steps of the graph's eager twin, relative to how far the weights moved; measured 3e-15 and 3e-6."""
    torch.set_default_dtype(dtype)
    try:
        with kernels.using(CPU, optimizer="masked"):
            pack = Pack([small_run(model, seed) for seed in range(3)], sprites, launch="graph")
            gathered = pack.gathered
            monkeypatch.setattr(
                pack,
                "gathered",
                lambda draw: {
                    name: value.to(dtype) if value.is_floating_point() else value
                    for name, value in gathered(draw).items()
                },
            )
            start, plain = in_modules(model, pack, 1), in_modules(model, pack, 1)
            plain.prepare()
            for step in range(12):
                drawn = pack.generate_inputs(torch.arange(step, step + 1))
                draw = pack.gathered({name: values[0] for name, values in drawn.items()})
                plain.step({name: value[1] for name, value in draw.items()})
            pack.advance(12)
            found = in_modules(model, pack, 1)
    finally:
        torch.set_default_dtype(torch.float32)
    weights = [torch.cat(each.weights()) for each in (start, plain, found)]
    assert all(each.dtype == dtype for each in weights)
    moved = (weights[1] - weights[0]).norm()
    assert moved > 0
    assert (weights[2] - weights[1]).norm() < tolerance * moved


def in_modules(model: str, pack: Pack, r: int) -> Plain:
    """A run of a pack as ordinary modules."""
    plain = Plain(model, pack.runs[r].config, pack.images.shape)
    adams = pack.model.optimizers.values()
    plain.load({name: v[r].detach() for adam in adams for name, v in adam.parameters.tensors.items()})
    return plain


def test_a_replayed_step_freezes_a_run_that_is_not_finite(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    runs = [small_run("factor_vae", seed) for seed in range(3)]
    states = Pack(runs, sprites).states()
    states[1]["vae.values"][0] = float("nan")
    packs = [Pack(runs, sprites), Pack(runs, sprites)]
    taped(packs[1])
    for pack in packs:
        with kernels.using(CPU, optimizer="masked"):
            pack.advance(6)  # the graph is captured while all are alive
            for name, tensor in pack._optimizer_state().items():
                if name == "vae.values":
                    tensor.data[1, 0] = float("nan")
            pack.advance(5)
    assert [pack.first_bad_steps() for pack in packs] == [[None, 6, None]] * 2
    assert digest(packs[0]) == digest(packs[1])


@pytest.mark.parametrize(
    ("model", "way"),
    # A GAN's penalty differentiates convolutions twice: it uses all that a way of computing them has.
    [*(("info_wgan_gp", way) for way in WAYS), ("beta_vae", "taps"), ("factor_vae", "streams_nhwc")],
)
def test_nothing_is_read_back_from_the_device(
    small_run: Callable[..., ResolvedRun], model: str, way: Convolution
) -> None:
    """On tensors without content there is nothing to read: a step that tries fails, at the paper's size for free."""
    device = torch.device("meta")
    network: dict[str, Value] = {"vae.network": "conv"}
    if model == "info_wgan_gp":
        network = {"network": "conv", "critic.steps": 1}
    runs = [small_run(model, seed, network, data="dsprites") for seed in range(3)]
    source = runs[0].source
    stored = torch.empty(source.num_images, 512, dtype=torch.uint8, device=device)
    with kernels.using(device, convolution=way, optimizer="masked"):
        pack = Pack(runs, Images(source, Packed(stored, 4096)), launch="eager")
        pack.advance(2)  # a step that reports and one that does not
    assert len(pack.seeds) == 8, "not a CPU: the size is one of the ladder"
    assert pack._last["loss"].shape == (8,)
    with pytest.raises(RuntimeError, match="meta"):
        pack.statistics()


def test_a_failed_capture_is_said_and_steps_are_launched_one_by_one(
    small_run: Callable[..., ResolvedRun], sprites: Images, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [small_run("beta_vae", seed) for seed in range(2)]
    eager, pack = Pack(runs, sprites), Pack(runs, sprites)

    def capture(_: Callable[[], None]) -> NoReturn:
        raise RuntimeError("operation not permitted when stream is capturing")

    pack._stepper = stepping.Graph(pack._chunk, capture)
    for each in (eager, pack):
        each.advance(20)
    assert digest(pack) == digest(eager)
    err = capsys.readouterr().err
    assert "capture failed; launching steps one by one: operation not permitted" in err


def test_a_capture_that_runs_out_of_memory_is_an_out_of_memory(
    small_run: Callable[..., ResolvedRun], sprites: Images
) -> None:
    pack = Pack([small_run("beta_vae")], sprites)

    def capture(_: Callable[[], None]) -> NoReturn:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    pack._stepper = stepping.Graph(pack._chunk, capture)
    with pytest.raises(RuntimeError, match="out of memory"):
        pack.advance(20)


def test_steps_are_a_graph_on_cuda_alone_and_where_the_device_holds_the_images() -> None:
    cuda = torch.device("cuda")
    assert stepping.choose(CPU, True, None) == "eager"
    assert stepping.choose(cuda, True, None) == "graph"
    assert stepping.choose(cuda, False, None) == "eager"
    assert stepping.choose(cuda, True, "eager") == "eager"
    assert Levels(torch.zeros(2, 3, dtype=torch.uint8), 255, CPU).is_on_device
    far = Levels(torch.zeros(2, 3, dtype=torch.uint8), 255, CPU)
    far._device = torch.device("meta")
    assert not far.is_on_device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("model", MODELS)
def test_on_cuda_a_graph_is_the_step_and_nothing_waits(
    small_run: Callable[..., ResolvedRun], model: str
) -> None:
    from trainables.data import sprites

    images = sprites.find().load(torch.device("cuda"))
    runs = [small_run(model, seed) for seed in range(3)]
    eager, graph = Pack(runs, images, launch="eager"), Pack(runs, images)
    assert graph.launch == "graph"
    torch.cuda.set_sync_debug_mode("error")
    try:
        eager.advance(20)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph.advance(20)
    assert digest(graph) == digest(eager)
