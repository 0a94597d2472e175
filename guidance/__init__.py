r"""What to ask of a denoiser at one (x, σ), and how to combine the answers.

A guidance is a formula: a weighted sum of one denoiser's predictions under different conditions. It is
written as the paper prints it, in Python or as text, and the rest is derived from it: what to evaluate, in
how few forwards, what it costs, whether two formulations are the same. Rules that are no weighted sum (a projection,
a rescaling, an interval of noise levels) are guidances too, stand beside formulas or wrap them. This room knows
nothing of prompts, samplers or images.

.. code-block:: python

    p, n, u = prediction("prompt"), prediction("negative"), prediction("empty")
    model = (u + 7.5 * (p - n)).wrap(denoiser)
    model = Rescale(Interval(NegPrompt(7.5), 0.3, 5), 0.7).wrap(denoiser)
"""

from .added import Added
from .answer import ANSWER
from .apg import APG
from .autoguidance import Autoguidance, Models
from .base import Guidance
from .cfg import CFG
from .cfgzero import CFGZeroStar
from .composable import Composable
from .contrastive import ContrastiveCFG
from .denoiser import Execution, GuidedDenoiser, Trace
from .dns import DNS
from .dual import DualCFG
from .dynamicneg import DynamicNegative
from .errors import GuidanceError
from .evaluator import Evaluator
from .formula import Direction, Formula, Linear, prediction
from .improper import ImproperNegative
from .interval import Interval, bounds
from .negprompt import NegPrompt
from .parsing import from_json, parse, strategies
from .perpneg import PerpNeg
from .renamed import Renamed
from .rescale import Rescale
from .schedules import CosineScale, LinearScale, StepScale
from .threshold import DynamicThreshold
from .weights import Scale

__all__ = [
    "ANSWER",
    "APG",
    "Added",
    "Autoguidance",
    "CFG",
    "CFGZeroStar",
    "Composable",
    "ContrastiveCFG",
    "CosineScale",
    "DNS",
    "Direction",
    "DualCFG",
    "DynamicNegative",
    "DynamicThreshold",
    "Evaluator",
    "Execution",
    "Formula",
    "Guidance",
    "GuidanceError",
    "GuidedDenoiser",
    "ImproperNegative",
    "Interval",
    "Linear",
    "LinearScale",
    "Models",
    "NegPrompt",
    "PerpNeg",
    "Renamed",
    "Rescale",
    "Scale",
    "StepScale",
    "Trace",
    "bounds",
    "from_json",
    "parse",
    "prediction",
    "strategies",
]
