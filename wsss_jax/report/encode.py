"""Pictures as data URIs, so that a page needs no other file."""

import base64
import dataclasses
import io

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Encodes RGB pictures as JPEG of at most `side` pixels with the given quality."""

    side: int
    quality: int

    def uri(self, picture: UInt8[np.ndarray, "h w 3"], side: int | None = None) -> str:
        """The picture as ``data:`` URI, its longer side at most `side` where that is given."""
        factor = min(1.0, min(side or self.side, self.side) / max(picture.shape[:2]))
        if factor < 1.0:
            height, width = (max(1, round(n * factor)) for n in picture.shape[:2])
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        file = io.BytesIO()
        # Without chroma subsampling the coloured outlines stay sharp.
        Image.fromarray(picture).save(file, "JPEG", quality=self.quality, subsampling=0)
        return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
