"""What guidance does to a picture whatever it shows: contrast and saturation, which high scales push up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from eval.metrics.metric import LOOK, Kind, Values
from eval.prompts import Prompt


class Appearance:
    """The standard deviation of the luminance (ITU-R 601), and the mean saturation (HSV); both from 0 to 1.

    Neither is better high or low: compare with plain guidance.
    """

    name = "standard deviation of luminance, mean HSV saturation"
    kinds = {"contrast": Kind("0 to 1", None, question=LOOK), "saturation": Kind("0 to 1", None, question=LOOK)}

    def __call__(self, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> Values:
        return {
            "contrast": [float(np.asarray(image.convert("L")).std() / 255) for image in images],
            "saturation": [float(np.asarray(image.convert("HSV"))[..., 1].mean() / 255) for image in images],
        }
