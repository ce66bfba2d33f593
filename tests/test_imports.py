"""Imports flow one way. Read from the sources; what a module drags in with it is asked of a fresh process."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("search_spaces", "sweeper", "trainables")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PLUGINS = ("models", "data", "metrics")
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "manager", "misc"}

BELOW_PLUGINS = {
    f"trainables.{name}"
    for name in (
        *("config", "durable", "encoding", "errors", "fitting", "images", "locking", "pixels", "plugins"),
        *("random_inputs", "reading", "stacked", "streams"),
    )
}
"""Modules that models, data sets and metrics may build on; the others build on them."""

ROOMS = (
    *("display", "ledger", "home", "machines", "scheduling", "analysis", "figures", "tracking", "pipeline"),
    *("cli", "__main__"),
)
"""Of `sweeper`, from the bottom: a room imports from those before it, at import or later, for types or for use."""

MAX_ROOMS = 12
"""Of fourteen entries in `sweeper`, with its `__init__`; places are kept for search and storage."""


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(path): path for path in FILES}


def statements(tree: ast.AST, at_import: bool) -> Iterator[ast.AST]:
    """All nodes, or those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if at_import and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from statements(node, at_import)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(path: Path, at_import: bool = False) -> frozenset[str]:
    """Modules that a file imports; of `from a import b` both `a` and, if it is one of ours, `a.b`."""
    found: set[str] = set()
    for node in statements(parsed(path), at_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES)
            # A package whose modules are imported is not itself what is used.
            found |= inner if len(inner) == len(node.names) else inner | {str(node.module)}
    return frozenset(found)


def roots(path: Path, at_import: bool = False) -> set[str]:
    """First parts of the imported names."""
    return {name.partition(".")[0] for name in imports(path, at_import)}


def is_package(name: str) -> bool:
    return MODULES[name].name == "__init__.py"


def inside(package: str) -> list[str]:
    return [name for name in MODULES if name == package or name.startswith(f"{package}.")]


def in_fresh_process() -> dict[str, str]:
    """Lines that one fresh process runs in turn, by name; each may hold what those before it hold."""
    driver = [name for name in inside("sweeper") if not name.endswith("__main__")]
    return {
        "listing": "from trainables import plugins\n"
        "plugins.names('trainables.models')\nplugins.names('search_spaces')",
        "search_spaces": f"import {', '.join(inside('search_spaces'))}",
        "cli": "import sweeper.cli.app",
        "training": f"import {', '.join(read_of_training())}",
        "tune": "import trainables.tune",
        "driver": f"import {', '.join(driver)}",
    }


def read_of_training() -> list[str]:
    """Metrics, and the modules of `trainables` that the driver imports."""
    by_driver = {name for own in inside("sweeper") for name in imports(MODULES[own], at_import=True)}
    return sorted(by_driver & set(inside("trainables"))) + inside("trainables.metrics")


@pytest.fixture(scope="module")
def loaded() -> Mapping[str, set[str]]:
    """First parts of the modules that a fresh process holds after each of the lines, by name."""
    code = "import sys\n" + "".join(f"{line}\nprint(*sys.modules)\n" for line in in_fresh_process().values())
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    held = [{name.partition(".")[0] for name in line.split()} for line in ran.stdout.splitlines()]
    return dict(zip(in_fresh_process(), held, strict=True))


def test_the_reader_of_imports_sees_what_a_file_imports(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(
        "import numpy as np\nfrom trainables import config, durable\nfrom trainables.errors import InputError\n"
        "class A:\n    import h5py\n    def f(self):\n        import torch.nn\n        from ray import tune\n"
    )
    ours = {"trainables.config", "trainables.durable", "trainables.errors"}
    assert imports(path, at_import=True) == {"numpy", "h5py"} | ours
    assert imports(path) == {"numpy", "h5py", "torch.nn", "ray"} | ours
    assert len(FILES) > 20


@pytest.mark.parametrize("name", MODULES)
def test_every_file_says_what_it_is_and_is_named_after_it(name: str) -> None:
    assert ast.get_docstring(parsed(MODULES[name])), f"{name} has no docstring"
    assert not FORBIDDEN_NAMES & {part.strip("_") for part in name.split(".")}


def room_of(name: str) -> str:
    return name.split(".")[1]


@pytest.mark.parametrize("name", [name for name in inside("sweeper") if name != "sweeper"])
def test_rooms_import_from_those_below_them(name: str) -> None:
    rooms = {room_of(found) for found in imports(MODULES[name]) if found.startswith("sweeper.")}
    above = ROOMS[ROOMS.index(room_of(name)) + 1 :]
    assert not rooms.intersection(above), f"{name} is below {rooms.intersection(above)}"


def test_there_are_few_rooms_and_nothing_private_inside_them() -> None:
    here = [path for path in (ROOT / "sweeper").iterdir() if path.name != "__pycache__"]
    entries = [path for path in here if path.is_dir() or path.suffix == ".py"]
    assert {path.stem for path in entries} == {"__init__", *ROOMS}
    assert len(entries) <= MAX_ROOMS
    parts = {part for name in MODULES for part in name.split(".")}
    assert {part for part in parts if part.startswith("_")} == {"__main__"}


def test_no_circle_of_imports() -> None:
    left = {name: imports(path) & set(MODULES) - {name} for name, path in MODULES.items()}
    while free := {name for name, found in left.items() if not found & set(left)}:
        left = {name: found for name, found in left.items() if name not in free}
    assert not left, f"in circles, or above one: {', '.join(left)}"


@pytest.mark.parametrize("name", [name for name in MODULES if is_package(name)])
def test_a_package_says_what_it_is_for_and_imports_nothing_heavy(name: str) -> None:
    assert roots(MODULES[name], at_import=True) <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("name", [name for plugin in PLUGINS for name in inside(f"trainables.{plugin}")])
def test_models_data_and_metrics_do_not_import_one_another(name: str) -> None:
    own_package = ".".join(name.split(".")[:2])
    shared = {found for found in inside(own_package) if found.count(".") > 2 or is_package(found)}
    ours = {found for found in imports(MODULES[name]) if found.partition(".")[0] in PACKAGES}
    assert ours <= BELOW_PLUGINS | shared, ours - BELOW_PLUGINS - shared


@pytest.mark.parametrize("name", inside("trainables"))
def test_training_needs_torch_numpy_and_h5py_alone(name: str) -> None:
    allowed = {"torch", "numpy", "h5py", "trainables"} | ({"ray"} if name == "trainables.tune" else set())
    # By metrics that are asked for; scikit-learn brings SciPy.
    late = {"sklearn", "scipy"} if name.startswith("trainables.metrics.") else set()
    late |= {"triton"} if name == "trainables.adam_kernel" else set()
    late |= (
        {"PIL"} if name == "trainables.data.readers.decoding" else set()
    )  # where there are pictures to decode
    assert roots(MODULES[name]) - set(sys.stdlib_module_names) <= allowed | late
    allowed |= {"triton"} if name == "trainables.adam_kernel" else set()  # imported late, on CUDA
    assert roots(MODULES[name], at_import=True) - set(sys.stdlib_module_names) <= allowed


def test_the_adapter_to_ray_imports_torch_in_functions_only(loaded: Mapping[str, set[str]]) -> None:
    assert "torch" not in roots(MODULES["trainables.tune"], at_import=True)
    assert "torch" not in loaded["tune"]


@pytest.mark.parametrize("name", inside("trainables.metrics"))
def test_metrics_import_no_torch(name: str) -> None:
    assert "torch" not in roots(MODULES[name])


def test_metrics_and_what_the_driver_reads_of_training_drag_in_no_torch(
    loaded: Mapping[str, set[str]],
) -> None:
    assert "trainables.blocks" in read_of_training()
    assert {"torch", "ray", "mlflow"} & loaded["training"] == set()


@pytest.mark.parametrize("name", inside("search_spaces"))
def test_search_spaces_import_neither_torch_nor_ray(name: str) -> None:
    assert not {"torch", "ray", "mlflow"} & roots(MODULES[name])


def test_search_spaces_drag_in_neither_torch_nor_ray(loaded: Mapping[str, set[str]]) -> None:
    assert not {"torch", "ray"} & loaded["search_spaces"]


@pytest.mark.parametrize("name", inside("sweeper"))
def test_the_driver_imports_no_torch_and_mlflow_in_one_file_only(name: str) -> None:
    assert "torch" not in roots(MODULES[name])
    assert "mlflow" not in roots(MODULES[name]) or name == "sweeper.tracking.store"


def test_the_driver_drags_in_no_torch(loaded: Mapping[str, set[str]]) -> None:
    assert "torch" not in loaded["driver"]


def test_the_command_line_answers_without_torch_ray_or_mlflow(loaded: Mapping[str, set[str]]) -> None:
    assert not {"torch", "ray", "mlflow"} & loaded["cli"]


def test_pareto_imports_numpy_alone_and_scipy_late() -> None:
    allowed = set(sys.stdlib_module_names) | {"collections.abc", "numpy"}
    path = MODULES["sweeper.analysis.pareto"]
    assert imports(path, at_import=True) <= allowed
    assert imports(path) <= allowed | {"scipy.special"}


def test_listing_plugins_drags_in_nothing_heavy(loaded: Mapping[str, set[str]]) -> None:
    assert not {"torch", "numpy", "ray", "mlflow", "optuna"} & loaded["listing"]
