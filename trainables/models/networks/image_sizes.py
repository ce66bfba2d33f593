"""Which images the paper's convolutions take, and how many layers they have.

Kim & Mnih (2018), Tables 1-3: 4 x 4 convolutions of stride 2 turn 64 x 64 pixels into 4 x 4 with 32, 32, 64, 64 channels.
Each doubling of the side adds a layer of 64 channels, and 32 x 32 has one less, so every size ends in 4 x 4 x 64 values.
"""

from typing import Literal

from trainables.errors import InputError

KERNEL = 4
"""Side of a kernel, and of the image that the convolutions end with."""

SIDES = (32, 64, 128, 256)
CHANNELS = (32, 32, 64, 64, 64, 64)
"""Channels of the layers from the image on; smaller images have the first of them."""

Network = Literal["auto", "conv", "mlp"]


def takes_convolutions(image: tuple[int, int, int]) -> bool:
    """Whether the paper's convolutions take images (C, H, W)."""
    _, height, width = image
    return height == width and height in SIDES


def network_for(image: tuple[int, int, int]) -> Network:
    """The network that fits images (C, H, W): the paper's convolutions where they do, otherwise a perceptron."""
    return "conv" if takes_convolutions(image) else "mlp"


def conv_channels(side: int) -> tuple[int, ...]:
    """Channels of each convolution, from images of side x side on."""
    return CHANNELS[: (side // KERNEL).bit_length() - 1]


def check_takes_convolutions(image: tuple[int, int, int], field: str) -> None:
    """Check that the paper's convolutions take images (C, H, W).

    Args:
        image: (C, H, W).
        field: The field that asks for them, for the message.

    Raises:
        InputError: They do not.
    """
    if not takes_convolutions(image):
        sides = ", ".join(map(str, SIDES[:-1]))
        raise InputError(
            f"{field}=conv takes square images of {sides} or {SIDES[-1]} pixels a side; these are {image[1]} x {image[2]}.\n"
            f"Use --set {field}=auto, which fits the images, or --set {field}=mlp."
        )
