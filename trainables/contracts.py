"""What a metric, a model and a data set must provide, as types, and how they are loaded.

Each module of `trainables.metrics`, `trainables.models` or `trainables.data` is a plug-in and must match the protocol of
its package. Needs no torch, so that a driver can load metrics.

Shape suffixes: R runs, B batch, C H W image, D dimensions of a code, V values of a traversal, P numbers of a buffer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from trainables import plugins

if TYPE_CHECKING:
    import numpy as np
    import torch

    from trainables.config import Config
    from trainables.encoding import Encoding
    from trainables.images import Source
    from trainables.random_inputs import RandomInput
    from trainables.stacked import Adam

METRICS, MODELS, DATA = "trainables.metrics", "trainables.models", "trainables.data"
SWEEPS = "search_spaces"

Direction = Literal["minimize", "maximize"]


class Metric(Protocol):
    """A module of `trainables.metrics`: scores how a run encodes and reconstructs a fixed set of images.

    Its docstring has a line each for Definition, Range, Direction, Chance and Source. Adding one: copy `active_dims.py`.

    Attributes:
        VERSION: Raised whenever values change; values of several versions are never compared.
        TITLE: Name on an axis, without the unit.
        DIRECTION: Which values are better.
        RANGE: Lowest and highest possible value.
        UNIT: For example `nats per image`; empty for a pure number.
        NEEDS_FACTORS: Number of ground-truth factors that must vary: 0, 1 or 2.
        IS_CHEAP: Whether it needs only NumPy and about a second, so that it can be computed at every evaluation.
        SETTINGS: Constants that change values; they are part of the metric's full name.
    """

    VERSION: int
    TITLE: str
    DIRECTION: Direction
    RANGE: tuple[float, float]
    UNIT: str
    NEEDS_FACTORS: int
    IS_CHEAP: bool
    SETTINGS: dict[str, int | float | str]

    def score(self, encoding: Encoding, generator: np.random.Generator) -> dict[str, float]:
        """Return the value under the metric's name, and its parts under `name/part`.

        Args:
            encoding: Codes, factors and reconstruction errors of the evaluation images of one run.
            generator: The only source of randomness; equal states give equal values.
        """
        ...


class Model(Protocol):
    """The runs of a pack, stacked: networks, loss and optimizers.

    `update` may be captured as a CUDA graph: it uses no clock, file, logger or global randomness, reads nothing back from
    the device, and does not branch on data.
    """

    @property
    def KEPT(self) -> tuple[str, ...]:
        """Names of the networks whose weights are kept after training."""
        ...

    @property
    def HAS_LIKELIHOOD(self) -> bool:
        """Whether it has `logits`, see `LikelihoodModel`; otherwise reconstructions have only a squared error."""
        ...

    @property
    def optimizers(self) -> Mapping[str, Adam]:
        """The optimizers, by network; they hold the parameters."""
        ...

    @property
    def buffers(self) -> Mapping[str, torch.Tensor]:
        """Numbers that training changes besides the parameters, one row per run: (R, P)."""
        ...

    @property
    def discrete_D(self) -> Sequence[bool]:
        """Which dimensions of the code are categories."""
        ...

    @property
    def traversal_DV(self) -> torch.Tensor:
        """Values of each dimension of the code that a picture of a traversal shows."""
        ...

    def random_inputs(self) -> dict[str, RandomInput]:
        """Return the random inputs that one step needs, by the name of their stream."""
        ...

    def update(
        self, inputs: dict[str, torch.Tensor], alive_R: torch.Tensor, *, is_reported: bool
    ) -> dict[str, torch.Tensor]:
        """Train all runs by one step.

        Args:
            inputs: The random inputs of `random_inputs`, and images.
            alive_R: True for runs whose numbers are still finite; the others are not updated.
            is_reported: Whether the statistics of the step are used.

        Returns:
            `alive`, and the statistics of the step, computed before the update; all (R,), detached.
        """
        ...

    def encode(self, x_RBCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the codes (R, B, D), and the log variances of their posterior if there is one."""
        ...

    def decode(self, z_RBD: torch.Tensor, /) -> torch.Tensor:
        """Return the images (R, B, C, H, W) of codes, in [0, 1]."""
        ...


class LikelihoodModel(Model, Protocol):
    """A model with a Bernoulli likelihood of the pixels."""

    def logits(self, z_RBD: torch.Tensor) -> torch.Tensor:
        """Return the log odds of the pixels, (R, B, C, H, W)."""
        ...


class ModelModule(Protocol):
    """A module of `trainables.models`. Adding one: copy `beta_vae.py`, or `info_wgan_gp.py` for codes without a posterior.

    Attributes:
        VERSION: Raised whenever the trajectory of a run changes.
    """

    VERSION: int

    @property
    def Config(self) -> Callable[..., Config]:
        """The configuration, a frozen dataclass whose defaults are those of the paper.

        Fields made by `per_run` may vary in a pack; those made by `by_image` follow from the images unless they are set.
        """
        ...

    @property
    def Model(self) -> Callable[..., Model]:
        """The model of a pack, built from (configurations, image (C, H, W), uniform random numbers, device)."""
        ...

    def check_shape(self, config: Any, image: tuple[int, int, int]) -> None:
        """Accept images (C, H, W) that the networks of a configuration, with its `by_image` fields filled in, take.

        Raises:
            InputError: They do not.
        """
        ...


class DataSet(Protocol):
    """A module of `trainables.data`. Adding one: copy `sprites.py`."""

    def find(self) -> Source:
        """Return the description of the set; files that it is made from are checked and converted now.

        Raises:
            InputError: Files are missing or not as expected.
        """
        ...


def metric(name: str) -> Metric:
    """Load a metric.

    Raises:
        UnknownNameError: There is no such metric.
    """
    return cast(Metric, plugins.load(METRICS, name, "metric"))


def metric_names() -> list[str]:
    """Return the names of all metrics, sorted."""
    return plugins.names(METRICS)


def check_metrics(names: Iterable[str]) -> None:
    """Check names of metrics without importing them.

    Raises:
        UnknownNameError: There is no such metric.
    """
    for name in names:
        plugins.check(METRICS, name, "metric")


def model(name: str) -> ModelModule:
    """Load a model.

    Raises:
        UnknownNameError: There is no such model.
    """
    return cast(ModelModule, plugins.load(MODELS, name, "model"))


def model_names() -> list[str]:
    """Return the names of all models, sorted."""
    return plugins.names(MODELS)


def check_model(name: str) -> None:
    """Check the name of a model without importing it.

    Raises:
        UnknownNameError: There is no such model.
    """
    plugins.check(MODELS, name, "model")


def data_set(name: str) -> DataSet:
    """Load a data set.

    Raises:
        UnknownNameError: There is no such data set.
    """
    return cast(DataSet, plugins.load(DATA, name, "data set"))


def data_set_names() -> list[str]:
    """Return the names of all data sets, sorted."""
    return plugins.names(DATA)
