"""3D Chairs: 86,366 renderings of 1,393 chairs, RGB on white, the middle 400 x 400 of 600 x 600 at 64 x 64; no ground truth.

Files: `rendered_chairs.tar` or the folder `rendered_chairs` in SWEEPER_DATA (default ~/.cache/sweeper). The paper does not
say how it crops; 400 is what public ports use.

Source: Aubry, Maturana, Efros, Russell & Sivic, Seeing 3D chairs, CVPR 2014.
"""

from trainables.data.official import picture_set
from trainables.images import Source


def find() -> Source:
    """The set, 1.1 GB, converted in minutes on first use.

    Raises:
        InputError: The files are missing or invalid.
    """
    return picture_set.find(
        "chairs3d (middle 400, 64x64)",
        ("rendered_chairs.tar", "rendered_chairs"),
        num_images=86_366,
        shape=(3, 64, 64),
        crop=(400, 400),
        source="Download rendered_chairs.tar from https://www.di.ens.fr/willow/research/seeing3Dchairs.",
    )
