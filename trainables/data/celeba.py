"""CelebA: 202,599 faces, RGB, the middle 148 x 148 of the aligned 178 x 218 pictures at 64 x 64; no ground truth.

Files: `img_align_celeba.zip` or the folder `img_align_celeba` in SWEEPER_DATA (default ~/.cache/sweeper). The paper only says
"cropped"; 148 is what most later work uses.

Source: Liu, Luo, Wang & Tang, Deep Learning Face Attributes in the Wild, ICCV 2015.
"""

from trainables.data.official import picture_set
from trainables.images import Source


def find() -> Source:
    """The set, 2.5 GB, converted in minutes on first use.

    Raises:
        InputError: The files are missing or invalid.
    """
    return picture_set.find(
        "celeba (middle 148, 64x64)",
        ("img_align_celeba.zip", "img_align_celeba"),
        num_images=202_599,
        shape=(3, 64, 64),
        crop=(148, 148),
        source="Download the aligned and cropped images from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html.",
    )
