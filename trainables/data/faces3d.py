"""3D Faces: 239,840 renderings of faces, grey, 64 x 64; no ground truth.

Files: `faces3d.zip`, `faces3d.tar` or the folder `faces3d` in SWEEPER_DATA (default ~/.cache/sweeper), rendered from a model
that requires a license. For sets of another size give their path.

Source: Paysan, Knothe, Amberg, Romdhani & Vetter, A 3D Face Model for Pose and Illumination Invariant Face Recognition,
AVSS 2009.
"""

from trainables.data.official import picture_set
from trainables.images import Source


def find() -> Source:
    """The set, 1 GB, converted in minutes on first use.

    Raises:
        InputError: The files are missing or invalid.
    """
    return picture_set.find(
        "faces3d (64x64)",
        ("faces3d.zip", "faces3d.tar", "faces3d"),
        num_images=239_840,
        shape=(1, 64, 64),
        crop=None,
        source="Render them from the Basel Face Model, https://faces.dmi.unibas.ch/bfm.",
    )
