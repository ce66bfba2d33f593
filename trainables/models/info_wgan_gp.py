"""InfoWGAN-GP (Kim & Mnih 2018, section 5 and appendices): InfoGAN's codes on a Wasserstein GAN with gradient penalty.

min over G, Q and max over D of
    E[D(x)] - E[D(G(c, e))] - eta E[(|grad D(x_hat)| - 1)^2] - lambda L_I(G, Q),
    L_I = E[log Q(c | G(c, e))], up to the entropy of c a lower bound of the mutual information of c and G(c, e)
(Chen et al. 2016; Gulrajani et al. 2017). c are continuous codes, uniform on (-1, 1), and one category; e is noise,
uniform on (-1, 1); x_hat lies between a real and a generated image. Q shares D's trunk, so it is trained with D, on
generated images that are constants there, as in InfoGAN's reference code. Q(c|x) is a Gaussian of unit variance
around its mean and a softmax.

An image is encoded by Q's means and its likeliest category, and rebuilt by the generator from these with noise 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from trainables import stacked
from trainables.config import per_run
from trainables.errors import InputError
from trainables.fitting import by_image
from trainables.models.networks import gan, vae
from trainables.models.networks.image_sizes import Network, network_for
from trainables.random_inputs import ImageBatch, Integers, RandomInput, Uniform

VERSION = 1


@dataclass(frozen=True)
class Critic:
    """How critic and Q are trained.

    Attributes:
        steps: Updates of the critic per update of the generator (the usual 5; the paper does not say).
        penalty: Weight eta of the gradient penalty (the usual 10).
        adam: Its optimizer (paper: learning rate 1e-4 or 1e-5).
    """

    steps: int = 5
    penalty: float = 10.0
    adam: vae.Adam = vae.Adam(1e-4, beta1=0.5, beta2=0.9)

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.penalty >= 0:
            raise InputError("critic.steps must be at least 1, and critic.penalty at least 0.")


@dataclass(frozen=True)
class Generator:
    """The generator's noise and optimizer.

    Attributes:
        noise_dim: Number of noise variables besides the codes (paper: 5 to 160).
        adam: Its optimizer (paper: learning rate 1e-3 or 1e-4).
    """

    noise_dim: int = 20
    adam: vae.Adam = vae.Adam(1e-3, beta1=0.5, beta2=0.9)

    def __post_init__(self) -> None:
        if self.noise_dim < 0:
            raise InputError("generator.noise_dim must be at least 0.")


@dataclass(frozen=True)
class Config:
    """Settings of one run; the defaults are the paper's for 2D Shapes.

    Attributes:
        information: Weight lambda of the mutual information (paper: 0 to 1); may differ inside a pack.
        batch_size: Images per update of the critic or the generator.
        network: `conv` as in the paper, `mlp`, or `auto`: convolutions for square images of 32, 64, 128 or 256 pixels a
            side, `mlp` for others.
        width: Units of a hidden fully connected layer.
        continuous: Number of continuous codes (paper: 4 on 2D Shapes).
        categories: Categories of the discrete code (paper: 3), 0 for none.
        critic: Critic and Q.
        generator: Generator.
    """

    information: float = per_run(0.2)
    batch_size: int = 64
    network: Network = by_image(network_for, usual="conv")
    width: int = 128
    continuous: int = 4
    categories: int = 3
    critic: Critic = Critic()
    generator: Generator = Generator()

    def __post_init__(self) -> None:
        if not self.information >= 0:
            raise InputError("information must be at least 0; the paper uses 0 to 1.")
        if self.batch_size < 2 or self.width < 1:
            raise InputError(
                "batch_size must be at least 2 (the generator normalizes by batch), and width at least 1."
            )
        if self.continuous < 1 or self.categories < 0 or self.categories == 1:
            raise InputError("continuous must be at least 1, and categories 0 or at least 2.")


def check_shape(config: Config, image: tuple[int, int, int]) -> None:
    """Check that the networks support images of shape (C, H, W).

    Raises:
        InputError: They do not support this size.
    """
    gan.generator_shapes(config.network, config.width, image, num_inputs=1)


class Model:
    """R stacked InfoWGAN-GPs.

    Args:
        configs: One per run; equal except for per-run fields.
        image: (C, H, W).
        uniform: Generates numbers in (0, 1), (R, count), from the stream of a given name.
        device: Where to train.

    Attributes:
        optimizers: The optimizers, by network.
        buffers: The running moments of the generator's normalization, one row per run, (R, P).
        discrete_D: Which codes are categories.
        traversal_DV: Values of each code that a picture shows, in the order of V.
    """

    KEPT = ("critic", "generator")
    """Networks whose weights are kept after training."""

    HAS_LIKELIHOOD = False
    """Whether `logits` gives a Bernoulli likelihood of the pixels."""

    def __init__(
        self,
        configs: Sequence[Config],
        image: tuple[int, int, int],
        uniform: vae.Uniform,
        device: torch.device,
    ) -> None:
        self.config, self.image, num_runs = configs[0], image, len(configs)
        config = self.config
        self.information_R = torch.tensor([each.information for each in configs], device=device)
        num_codes = config.continuous + config.categories
        shapes = gan.critic_shapes(config.network, config.width, image, num_codes)
        self.critic = stacked.Parameters(shapes, num_runs, device)
        num_inputs = num_codes + config.generator.noise_dim
        shapes = gan.generator_shapes(config.network, config.width, image, num_inputs)
        self.generator = stacked.Parameters(shapes, num_runs, device)
        for parameters in (self.critic, self.generator):
            vae.initialize(parameters, uniform)
        with torch.no_grad():
            for name, tensor in self.generator.tensors.items():
                if name.endswith(".scale"):
                    tensor.fill_(1.0)
        self.moments = gan.Moments(shapes, num_runs, device)
        self.generate = gan.Generator(self.generator.tensors, self.moments, config.network, image)
        self.optimizers = {
            "critic": vae.adam(self.critic, config.critic.adam, config.critic.steps),
            "generator": vae.adam(self.generator, config.generator.adam),
        }
        self.buffers = {"moments": self.moments.values_RP}
        self.discrete_D = (*[False] * config.continuous, *[True] * bool(config.categories))
        self.traversal_DV = self._traversal(device)

    def _traversal(self, device: torch.device) -> torch.Tensor:
        steps = torch.arange(vae.NUM_TRAVERSED, device=device)
        rows = [steps / (vae.NUM_TRAVERSED - 1) * 2 - 1] * self.config.continuous
        rows += [(steps % self.config.categories).float()] if self.config.categories else []
        return torch.stack(rows)

    def random_inputs(self) -> dict[str, RandomInput]:
        """Randomness of one step: codes and noise for each update, images and places between for the critic's."""
        config, size = self.config, self.config.batch_size
        found: dict[str, RandomInput] = {}
        for update in [*(f"critic {k}" for k in range(config.critic.steps)), "generator"]:
            found[f"codes {update}"] = Uniform((size, config.continuous + config.generator.noise_dim))
            if config.categories:
                found[f"category {update}"] = Integers(config.categories, size)
        for k in range(config.critic.steps):
            found[f"batch critic {k}"] = ImageBatch(size)
            found[f"place critic {k}"] = Uniform((size,))
        return found

    def update(
        self, inputs: dict[str, torch.Tensor], alive_R: torch.Tensor, *, is_reported: bool
    ) -> dict[str, torch.Tensor]:
        """Some updates of critic and Q, then one of the generator; values are those before the last update of each, (R,).

        `wasserstein` estimates the distance of images and generated ones in units of the critic, `information` is
        -E[log Q(c|G)] in nats up to a constant, `penalty` is E[(|grad D| - 1)^2].
        """
        del is_reported  # the values are by-products
        for k in range(self.config.critic.steps):
            continuous_RBC, category_RBK, z_RBI = self._inputs(inputs, f"critic {k}")
            with torch.no_grad():
                fake_RBCHW = self.generate(z_RBI, by_batch=True)
            real_RBCHW = inputs[f"batch critic {k}"]
            wasserstein_R, features = self._wasserstein(real_RBCHW, fake_RBCHW)
            miss_R = self._miss(self.critic.tensors, features, continuous_RBC, category_RBK)
            penalty_R = self.penalty(real_RBCHW, fake_RBCHW, inputs[f"place critic {k}"])
            loss_R = -wasserstein_R + self.config.critic.penalty * penalty_R + self.information_R * miss_R
            self.critic.backward(loss_R.sum())
            alive_R = self.optimizers["critic"].step(alive_R)

        continuous_RBC, category_RBK, z_RBI = self._inputs(inputs, "generator")
        fake_RBCHW = self.generate(z_RBI, by_batch=True, kept_by_R=alive_R)
        critic = {name: tensor.detach() for name, tensor in self.critic.tensors.items()}
        score_RB, features = gan.criticize(critic, fake_RBCHW, self.config.network)
        miss_R = self._miss(critic, features, continuous_RBC, category_RBK)
        self.generator.backward((-score_RB.mean(1) + self.information_R * miss_R).sum())
        alive_R = self.optimizers["generator"].step(alive_R)
        return {
            "alive": alive_R,
            "loss": loss_R.detach(),
            "wasserstein": wasserstein_R.detach(),
            "information": miss_R.detach(),
            "penalty": penalty_R.detach(),
        }

    def _inputs(
        self, inputs: dict[str, torch.Tensor], update: str
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Continuous codes, the category as ones and zeros, and both with noise as the generator's input."""
        uniform_RBI = inputs[f"codes {update}"] * 2 - 1
        continuous_RBC = uniform_RBI[..., : self.config.continuous]
        if not self.config.categories:
            return continuous_RBC, uniform_RBI[..., :0], uniform_RBI
        category_RBK = self._one_hot(inputs[f"category {update}"])
        noise_RBI = uniform_RBI[..., self.config.continuous :]
        return continuous_RBC, category_RBK, torch.cat([continuous_RBC, category_RBK, noise_RBI], 2)

    def _one_hot(self, category_RB: torch.Tensor) -> torch.Tensor:
        labels_K = torch.arange(self.config.categories, device=category_RB.device)
        return (category_RB[..., None] == labels_K).float()

    def _wasserstein(
        self, real_RBCHW: torch.Tensor, fake_RBCHW: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """E[D(x)] - E[D(G)], (R,), and the trunk's features of the generated images."""
        real_RB, _ = gan.criticize(self.critic.tensors, real_RBCHW, self.config.network)
        fake_RB, features = gan.criticize(self.critic.tensors, fake_RBCHW, self.config.network)
        return real_RB.mean(1) - fake_RB.mean(1), features

    def _miss(
        self,
        critic: vae.Tensors,
        features: torch.Tensor,
        continuous_RBC: torch.Tensor,
        category_RBK: torch.Tensor,
    ) -> torch.Tensor:
        """-E[log Q(c|G(c, e))], (R,), nats without the Gaussian's constant."""
        inferred_RBQ = gan.infer(critic, features)
        means_RBC = inferred_RBQ[..., : self.config.continuous]
        miss_RB = 0.5 * (continuous_RBC - means_RBC).square().sum(2)
        if self.config.categories:
            log_odds_RBK = inferred_RBQ[..., self.config.continuous :]
            miss_RB = miss_RB + stacked.softmax_nats(log_odds_RBK, category_RBK)
        return miss_RB.mean(1)

    def penalty(
        self, real_RBCHW: torch.Tensor, fake_RBCHW: torch.Tensor, place_RB: torch.Tensor
    ) -> torch.Tensor:
        """E[(|grad D(x_hat)| - 1)^2] at x_hat between real and generated images, (R,)."""
        place = place_RB[..., None, None, None]
        between_RBCHW = (real_RBCHW + place * (fake_RBCHW - real_RBCHW)).requires_grad_()
        score_RB, _ = gan.criticize(self.critic.tensors, between_RBCHW, self.config.network)
        slope_RBCHW = stacked.slope_at_images(score_RB.sum(), between_RBCHW)
        # The root has no slope at 0, where a critic starts out flat.
        norm_RB = stacked.elementwise(torch.sqrt, slope_RBCHW.square().flatten(2).sum(2) + 1e-12)
        return (norm_RB - 1).square().mean(1)

    def encode(self, x_RBCHW: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Q's means and its likeliest category as a label, (R, B, D); there is no posterior variance."""
        _, features = gan.criticize(self.critic.tensors, x_RBCHW, self.config.network)
        inferred_RBQ = gan.infer(self.critic.tensors, features)
        means_RBC = inferred_RBQ[..., : self.config.continuous]
        if not self.config.categories:
            return means_RBC, None
        category_RB1 = inferred_RBQ[..., self.config.continuous :].argmax(2, keepdim=True)
        return torch.cat([means_RBC, category_RB1.float()], 2), None

    def decode(self, codes_RBD: torch.Tensor) -> torch.Tensor:
        """The generator at codes, noise 0: pixels in (0, 1), (R, B, C, H, W)."""
        inputs = [codes_RBD[..., : self.config.continuous]]
        if self.config.categories:
            inputs.append(self._one_hot(codes_RBD[..., -1]))
        z_RBI = F.pad(torch.cat(inputs, 2), (0, self.config.generator.noise_dim))
        return self.generate(z_RBI, by_batch=False)
