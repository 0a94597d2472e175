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

from .algebra.direction import Direction
from .algebra.formula import Added, Formula, Guidance, Linear, Renamed, prediction
from .algebra.modifier import Modifier
from .algebra.parsing import from_json, parse
from .algebra.scales import CosineScale, LinearScale, StepScale
from .algebra.spelling import strategies
from .algebra.weights import Scale
from .denoiser.batch import Execution
from .denoiser.evaluator import Evaluator
from .denoiser.guided import GuidedDenoiser, Trace
from .denoiser.models import Models
from .errors import GuidanceError
from .rules.answer import ANSWER
from .rules.apg import APG
from .rules.autoguidance import Autoguidance
from .rules.cfg import CFG
from .rules.cfg_norm import CFGNorm
from .rules.cfg_zero_star import CFGZeroStar
from .rules.composable import Composable
from .rules.contrastive_cfg import ContrastiveCFG
from .rules.dns import DNS
from .rules.dual_cfg import DualCFG
from .rules.dynamic_negative import DynamicNegative
from .rules.dynamic_threshold import DynamicThreshold
from .rules.epsilon_scaling import EpsilonScaling
from .rules.fdg import FDG
from .rules.feedback_guidance import FeedbackGuidance
from .rules.improper_negative import ImproperNegative
from .rules.interval import Interval, bounds
from .rules.mahiro import Mahiro
from .rules.mambo_g import MAMBOG
from .rules.neg_prompt import NegPrompt
from .rules.perp_neg import PerpNeg
from .rules.rescale import Rescale
from .rules.sld import SLD
from .rules.tcfg import TCFG
from .rules.temporal_score_rescaling import TemporalScoreRescaling

__all__ = [
    "FeedbackGuidance",
    "SLD",
    "TemporalScoreRescaling",
    "EpsilonScaling",
    "Mahiro",
    "CFGNorm",
    "MAMBOG",
    "TCFG",
    "FDG",
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
    "Modifier",
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
