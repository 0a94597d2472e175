r"""The Inception Score of a set of pictures, by any classifier.

.. math:: \mathrm{IS} = \exp \mathbb{E}_x \mathrm{KL}(p(y \mid x) \,\|\, p(y))

References:
    Improved Techniques for Training GANs, Salimans et al., 2016, https://arxiv.org/abs/1606.03498.
    A Note on the Inception Score, Barratt & Sharma, 2018, https://arxiv.org/abs/1801.01973: off ImageNet it is a
    weak sign, so the classifier is part of the result's name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval.metrics.metric import QUALITY, Kind

Classifier = Callable[[Sequence[Image.Image]], Tensor]
"""Pictures → logits (B, classes)."""


class InceptionScore:
    """The metric: the mean over the splits of an arm's pictures, and the standard deviation between them.

    Args:
        classifier: Of any kind.
        name: Of the classifier, which is part of the result's name.
    """

    kinds = {
        "inception score": Kind("score", question=QUALITY),
        "inception score std": Kind("score", None, question=QUALITY),
    }

    def __init__(self, classifier: Classifier, name: str, splits: int = 10) -> None:
        self.classifier, self.splits = classifier, splits
        self.name = f"Inception Score, {splits} splits, {name}"

    def features(self, images: Sequence[Image.Image]) -> list[Tensor]:
        """The logits (classes,) of each picture."""
        return list(self.classifier(images))

    def of_set(self, features: Sequence[Tensor]) -> dict[str, float]:
        """The score of the pictures with these logits.

        Raises:
            ValueError: fewer pictures than splits.
        """
        return dict(zip(self.kinds, inception_score(torch.stack(list(features)), self.splits), strict=True))


def inception_score(logits: Tensor, splits: int = 10, seed: int = 2020) -> tuple[float, float]:
    """The mean and the standard deviation over the splits of shuffled pictures, in float64, as torch-fidelity has it.

    Args:
        logits: (N, classes).

    Raises:
        ValueError: fewer pictures than splits.
    """
    if len(logits) < splits:
        raise ValueError(f"an Inception Score of {splits} splits needs that many pictures, there are {len(logits)}")
    order = np.random.RandomState(seed).permutation(len(logits))
    log_p = logits.double()[order].log_softmax(1)
    scores = []
    for part in range(splits):
        one = log_p[part * len(log_p) // splits : (part + 1) * len(log_p) // splits]
        marginal = one.exp().mean(0, keepdim=True)
        scores.append(float((one.exp() * (one - marginal.log())).sum(1).mean().exp()))
    return float(np.mean(scores)), float(np.std(scores))


class Inception:
    """torch-fidelity's network of 2015 with its 1,008 classes, from a file of its weights.

    Raises:
        ValueError: torch-fidelity is not installed, or the file is not there or not its weights.
    """

    def __init__(self, weights: str | Path) -> None:
        if not Path(weights).is_file():
            raise ValueError(
                f"there are no Inception weights in {str(weights)!r}: download torch-fidelity's "
                "weights-inception-2015-12-05-6726825d.pth and give its path with --classifier"
            )
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise ValueError("the Inception network needs torch-fidelity: pip install 'dnp[fidelity]'") from None
        try:
            self._network = FeatureExtractorInceptionV3("inception", ["logits_unbiased"], str(weights))
        except Exception as error:  # whatever a foreign file brings about
            line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ValueError(f"{weights} does not hold torch-fidelity's Inception ({line})") from None
        self.name = "torch-fidelity Inception v3 (2015, 1008 classes)"

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        pixels = [torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) for image in images]
        return torch.cat([self._network(one[None])[0] for one in pixels])
