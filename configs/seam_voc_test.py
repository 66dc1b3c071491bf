"""The whole chain of `seam_voc`, followed by the archive for PASCAL VOC's test server.

    python -m wsss_jax.main --config configs/seam_voc_test.py --workdir runs/seam_voc_test \
        --config.data.root=DIR/VOCdevkit --config.init_weights=resnet38.npz

With the workdir of a finished `seam_voc` run and the same overrides, finished stages are not run
again. The VOCdevkit needs the test images and ``ImageSets/Segmentation/test.txt``.
"""

from typing import Any

from configs import chains, seam_voc


def get_config() -> Any:
    """Returns the recipe; the command line can replace every value."""
    c = seam_voc.get_config()
    c.name = "seam_voc_test"
    chains.submission(c)
    return c
