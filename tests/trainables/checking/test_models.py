"""The laws of models find every model that breaks one, and no other."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SMALL
from trainables import contracts, plugins
from trainables.checking import models
from trainables.checking.laws import Verdict

pytestmark = pytest.mark.usefixtures("own_files", "arithmetic")

BASE = '''"""A VAE."""

from dataclasses import dataclass

import torch

from trainables.models import beta_vae
from trainables.models.beta_vae import Config, check_shape

VERSION = 1


class Model(beta_vae.Model):
    """A VAE."""

    {}
'''

UPDATE = '''def update(self, inputs, alive_R, *, is_reported):
        """A step."""
        {}
'''


def problems(verdicts: list[Verdict]) -> dict[str, str]:
    return {verdict.law: verdict.problem for verdict in verdicts if verdict.problem}


@pytest.fixture
def checked(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    def check(text: str) -> dict[str, str]:
        path = tmp_path / "mine.py"
        path.write_text(text)
        plugins.add_path(path)
        return problems(models.check("mine", SMALL["beta_vae"]))

    return check


@pytest.mark.parametrize("name", plugins.names(contracts.MODELS))
def test_every_model_keeps_its_contract(name: str) -> None:
    verdicts = models.check(name, SMALL[name])
    assert len(verdicts) == len(models.LAWS)
    assert not problems(verdicts)


BROKEN = [
    (
        "feels its neighbours",
        '''def encode(self, x_RBCHW):
        """Codes."""
        mu_RBD, logvar_RBD = super().encode(x_RBCHW)
        return mu_RBD - mu_RBD.mean(0, keepdim=True), logvar_RBD''',
        {
            "a run is the same alone and in a pack": r"differs between a pack of 3 and the run alone. Nothing may be",
            "a run that diverges harms no other": "NaN in seed 0 changes",
        },
    ),
    (
        "remembers what no state holds",
        UPDATE.format(
            "self.count = getattr(self, 'count', 0) + 1\n"
            "        return super().update({**inputs, 'noise a': inputs['noise a'] * self.count}, alive_R, is_reported=is_reported)"
        ),
        {"a resumed run is the same, bit for bit": r"belongs in `optimizers` or `buffers`"},
    ),
    (
        "draws by itself",
        UPDATE.format(
            "torch.rand(1)\n        return super().update(inputs, alive_R, is_reported=is_reported)"
        ),
        {"all random numbers come from random_inputs": "Ask for them in `random_inputs`"},
    ),
    (
        "keeps the dead alive",
        UPDATE.format(
            "found = super().update(inputs, alive_R, is_reported=is_reported)\n"
            "        return {**found, 'alive': torch.ones_like(alive_R)}"
        ),
        {"a run that diverges harms no other": "counts as alive"},
    ),
    (
        "reports a gradient",
        UPDATE.format(
            "found = super().update(inputs, alive_R, is_reported=is_reported)\n"
            "        return {**found, 'loss': torch.ones_like(found['loss']).requires_grad_()}"
        ),
        {"it trains, and its statistics are finite": r"Return loss\.detach\(\)"},
    ),
    (
        "reports one value for all runs",
        UPDATE.format(
            "found = super().update(inputs, alive_R, is_reported=is_reported)\n"
            "        return {**found, 'loss': found['loss'].mean()}"
        ),
        {"it trains, and its statistics are finite": r"loss of shape \(\); expected one value per run"},
    ),
    (
        "has weights that nothing uses",
        '''def encode(self, x_RBCHW):
        """Codes."""
        mu_RBD, logvar_RBD = super().encode(x_RBCHW)
        return mu_RBD.detach(), logvar_RBD.detach()''',
        {"it trains, and its statistics are finite": "not have been used in the graph"},
    ),
    (
        "has weights without a gradient",
        '''def logits(self, z_RBD):
        """Log odds."""
        return super().logits(0 * z_RBD)''',
        {"every weight has a gradient": r"these weights never change, .*: decoder.*1\.weight of vae"},
    ),
    (
        "decodes to log odds",
        '''def decode(self, z_RBD):
        """Images."""
        return 100 * self.logits(z_RBD)''',
        {"codes, images and weights have the declared shapes": r"outside \[0, 1\]"},
    ),
]


@pytest.mark.parametrize(("what", "body", "expected"), BROKEN, ids=[what for what, _, _ in BROKEN])
def test_a_model_that_breaks_a_law_is_told_which(
    checked: Callable[[str], dict[str, str]], what: str, body: str, expected: dict[str, str]
) -> None:
    found = checked(BASE.format(body))
    assert set(found) >= set(expected), what
    for law, problem in expected.items():
        assert re.search(problem, found[law]), found[law]


def test_an_undocumented_field_is_named(checked: Callable[[str], dict[str, str]]) -> None:
    text = BASE.replace("import Config, check_shape", "import check_shape").format("pass")
    config = (
        '@dataclass(frozen=True)\nclass Config(beta_vae.Config):\n    """Settings.\n\n    Attributes:\n        beta: Weight.\n    """\n\n'
        "    warm_up: int = 10\n\n\n"
    )
    found = checked(text.replace("class Model", f"{config}class Model"))
    assert list(found) == ["every field of Config is documented"]
    assert "Add a line 'batch_size: ...' below 'Attributes:'" in next(iter(found.values()))


def test_an_exception_is_placed_in_the_file(checked: Callable[[str], dict[str, str]]) -> None:
    found = checked(BASE.format(UPDATE.format("return inputs['batch b']")))
    assert list(found.values()) == [found["it trains, and its statistics are finite"]]
    assert "KeyError" in next(iter(found.values()))
    assert "mine.py, line 18" in next(iter(found.values()))
