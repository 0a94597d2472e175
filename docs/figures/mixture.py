"""Draws docs/figures/mixture.png: guidance on a mixture of Gaussians, whose scores are exact.

python docs/figures/mixture.py
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "guidance"))
from test_mixture import CENTRES, CERTAIN, LIKELY, SPREAD, samples

from guidance import CFG, DNS, ImproperNegative

PANELS = {
    "data, u": (CFG(0), LIKELY, 6),
    "prompt (80 % the top), CFG, s = 3": (CFG(3), LIKELY, 6),
    "DNS, s = 3": (DNS(3), LIKELY, 6),
    "DNS, s = 3, prompt 100 % the top": (DNS(3), CERTAIN, 14),
    "improper negative (eq. 16)": (ImproperNegative(), LIKELY, 800),
}

figure, axes = pyplot.subplots(1, len(PANELS), figsize=(3 * len(PANELS), 3.2))
for panel, (title, (guidance, prompt, extent)) in zip(axes, PANELS.items(), strict=True):
    for centre, colour in zip(CENTRES, ("#c2410c", "#6b7280", "#6b7280"), strict=True):
        panel.add_patch(pyplot.Circle(centre.tolist(), 2 * SPREAD, color=colour, alpha=0.25, lw=0))
    panel.plot(*samples(guidance, prompt).T, ".", ms=3, color="#1d4ed8", alpha=0.6)
    panel.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
    panel.set_title(title, fontsize=9)
    panel.tick_params(labelsize=7)
figure.tight_layout()
figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
