"""Writes the tables of docs/peers.md: who has what, and where the same name means another formula: `make results`.

The tables stand between <!-- peers:NAME --> and <!-- /peers:NAME -->. diffusers' guiders and schedulers are run as they
are installed; what ComfyUI and azula compute is written here from what their source says, as neither is a dependency.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.guiders import (
    AdaptiveProjectedGuidance,
    ClassifierFreeGuidance,
    ClassifierFreeZeroStarGuidance,
    FrequencyDecoupledGuidance,
    MagnitudeAwareGuidance,
    TangentialClassifierFreeGuidance,
)
from torch import Tensor

import guidance as ours
from eval.manifest import write_whole
from guidance.samplewise import SPACES, dot, per_sample
from samplers import schedule

PAGE = Path(__file__).with_suffix(".md")
S, CAP, PHI = 7.5, 15.0, 0.7  # the scale, APG's largest norm (diffusers' default), Rescale's share
ZERO = 1e-5  # what rounding leaves: some guiders compute in float32

# Peers' names as they stand in the source; "–": not found in it. Guiders are those of diffusers.guiders.
HEAD = ("formulation", "here", "diffusers", "ComfyUI", "Forge", "azula")
WHO = (
    ("classifier-free guidance", "`CFG`", "`ClassifierFreeGuidance`", "CFGGuider", "yes", "`CFGDenoiser`: s − 1"),
    ("negative prompt, 2 evaluations", "`NegPrompt(s, evaluations=2)`", "all pipelines", "yes", "yes", "`CFGDenoiser`"),
    ("negative prompt, eq. 4, its own strength", "`NegPrompt`", "–", "–", "–", "–"),
    ("DNS and DNP, automatic negatives", "`DNS`, `dnp generate`", "–", "–", "–", "–"),
    ("sums of prompts (AND)", "`Composable`", "–", "–", "AND, weights normalised", "–"),
    ("Perp-Neg", "`PerpNeg`", "–", "PerpNegGuider", "–", "–"),
    ("dual guidance", "`DualCFG`", "InstructPix2Pix pipeline", "DualCFGGuider", "–", "–"),
    ("rescale", "`Rescale`, in ε, v or flow", "`guidance_rescale`, as predicted", "RescaleCFG, in v", "yes", "–"),
    ("dynamic thresholding", "`DynamicThreshold`", "`thresholding` of schedulers", "–", "extension", "–"),
    ("APG", "`APG`", "`AdaptiveProjectedGuidance`", "APG", "–", "–"),
    ("CFG-Zero*", "`CFGZeroStar`", "`ClassifierFreeZeroStarGuidance`", "CFGZeroStar", "–", "–"),
    ("autoguidance", "`Autoguidance`, any model", "`AutoGuidance`, layers skipped", "–", "–", "–"),
    ("limited interval", "`Interval`, in σ", "`start`, `stop`, in steps", "of a condition", "of a condition", "–"),
    ("SLD", "`SLD`", "safe pipeline, deprecated", "–", "–", "–"),
    ("FDG", "`FDG`", "`FrequencyDecoupledGuidance`", "– (FreSca: two bands of Fourier)", "–", "–"),
    ("TCFG", "`TCFG`", "`TangentialClassifierFreeGuidance`", "TCFG", "–", "–"),
    ("MAMBO-G", "`MAMBOG`", "`MagnitudeAwareGuidance`", "–", "–", "–"),
    ("CFGNorm, Mahiro", "`CFGNorm`, `Mahiro`", "–", "CFGNorm, Mahiro", "–", "–"),
    ("epsilon scaling, temporal score rescaling", "`EpsilonScaling`, `TemporalScoreRescaling`", "–", "both", "–", "–"),
    ("dynamic negative, contrastive, feedback", "`DynamicNegative`, `ContrastiveCFG`, `FeedbackGuidance`", *"––––"),
    ("perturbed attention", "`dnp.attention`", "`PerturbedAttentionGuidance`", "PAG", "extension", "–"),
    ("normalised attention (NAG)", "`dnp.attention`", "–", "NAGuidance", "–", "–"),
    ("Attend-and-Excite", "`dnp.attention`", "deprecated pipeline", "–", "–", "–"),
    ("a guidance of one's own", "a formula as text, or a class", "a class", "a node", "a script", "a class"),
)  # fmt: skip

# Which file of which commit was read.
READ = (
    ("ComfyUI", "comfy_extras/nodes_cfg.py", "95e8199"),
    ("ComfyUI", "comfy_extras/nodes_apg.py", "0c98ae6"),
    ("ComfyUI", "comfy_extras/nodes_custom_sampler.py", "065c1df"),
    ("ComfyUI", "comfy_extras/nodes_eps.py", "09d0de4"),
    ("ComfyUI", "comfy_extras/nodes_fresca.py", "19373ae"),
    ("ComfyUI", "comfy_extras/nodes_mahiro.py", "076bee6"),
    ("ComfyUI", "comfy_extras/nodes_nag.py", "5a51bf8"),
    ("ComfyUI", "comfy_extras/nodes_perpneg.py", "041b882"),
    ("ComfyUI", "comfy_extras/nodes_tcfg.py", "459fdc8"),
    ("Forge", "backend/sampling/sampling_function.py", "0863765"),
    ("Forge", "extensions-builtin/sd_forge_latent_modifier/scripts/forge_latent_modifier.py", "0207eec"),
    ("azula", "azula/guidance/cfg.py", "4780ad8"),
)


@dataclass(frozen=True)
class Difference:
    """How far a peer is from the paper's formula at the same settings, and what makes the two one, if anything."""

    name: str
    peer: str
    theirs: str
    paper: str
    apart: float
    remedy: str = ""
    left: float | None = None


class Given:
    """A batch of predictions whose samples differ in how strong the prompt is, and how like it the negative is.

    Args:
        sigma: The noise level of all samples.
    """

    def __init__(self, sigma: float = 2.0) -> None:
        rng = torch.Generator().manual_seed(0)
        clean, noise, a, b, c = (torch.randn(4, 4, 32, 32, generator=rng, dtype=torch.float64) for _ in range(5))
        strength, alike = (per_sample(torch.linspace(*ends, 4).double(), clean) for ends in ((0.1, 0.4), (0.2, 0.9)))
        self.x, self.sigma = clean + sigma * noise, torch.full((4,), sigma, dtype=torch.float64)
        self.u = 0.7 * clean + 0.3 * a
        self.p = self.u + strength * b
        self.n = self.u + strength * (alike * b + (1 - alike**2).sqrt() * c)

    def here(self, rule: Any, **other: Tensor) -> Tensor:
        """The guided prediction of a rule of this library."""
        model = rule.wrap(lambda x, sigma, d: d, "sequential")
        known = {"empty": self.u, "prompt": self.p, "negative": self.n, **other}
        return model(self.x, self.sigma, **{name: {"d": known[name]} for name in rule.names})

    def guider(self, guider: Any, space: str = "", p: Tensor | None = None, u: Tensor | None = None) -> Tensor:
        """The same of a guider of diffusers, fed with what a model of that space predicts."""
        to, back = SPACES.get(space, (lambda d, x, sigma: d,) * 2)
        guider.set_state(step=5, num_inference_steps=10, timestep=torch.tensor(500))
        p, u = self.p if p is None else p, self.u if u is None else u
        fed = [to(d, self.x, self.sigma) for d in (p, u)]
        if isinstance(guider, MagnitudeAwareGuidance):  # its norm fails for more than three dimensions
            fed = [d.flatten(2) for d in fed]
        guided = guider.forward(pred_cond=fed[0], pred_uncond=fed[1]).pred.view_as(self.x)
        return back(guided, self.x, self.sigma)


def apart(theirs: Tensor, paper: Tensor) -> float:
    """The norm of the difference over that of the paper's."""
    return float((theirs - paper).norm() / paper.norm())


def each(formula: Any, *tensors: Tensor) -> Tensor:
    """A formula of a batch, for each sample alone."""
    return torch.cat([formula(*(t[i : i + 1] for t in tensors)) for i in range(len(tensors[0]))])


def perp_neg_of_batch(u: Tensor, p: Tensor, n: Tensor) -> Tensor:
    a, b = p - u, n - u
    return u + S * (a - (b - (a * b).sum() / (a * a).sum() * a))


def mahiro_of_batch(u: Tensor, p: Tensor) -> Tensor:
    guided, leap = u + S * (p - u), S * p
    roots = [t.sign() * t.abs().sqrt() for t in (S * u, (leap + guided) / 2)]
    share = (1 + torch.cosine_similarity(*roots, dim=1).mean()) / 2
    return share * guided + (1 - share) * leap


def comfy_apg(s: float, u: Tensor, p: Tensor) -> Tensor:
    change = p - u
    change = change * (CAP / dot(change, change).sqrt()).clamp(max=1)
    return p + s * (change - dot(change, p) / dot(p, p) * p)


def comfy_zero_star(g: Given) -> Tensor:
    """The best multiple is found of the velocity, to which x − D is parallel at one time, and then applied to D."""
    z = g.x / (1 + per_sample(g.sigma, g.x))
    p, u = z - g.p, z - g.u
    alpha = dot(p, u) / dot(u, u)
    return alpha * g.u + S * (g.p - alpha * g.u)


def guidances() -> list[Difference]:
    """What differs between guidances."""

    def apg(s: float = S, eta: float = 0.0, original: bool = False) -> Any:
        return AdaptiveProjectedGuidance(s, None, CAP, eta=eta, use_original_formulation=original)

    g, cfg = Given(), ClassifierFreeGuidance
    two, three = (ours.NegPrompt(S, evaluations=count) for count in (2, 3))
    dns, plain = g.here(ours.DNS(S)), g.here(ours.CFG(S))
    paper_apg, flat = g.here(ours.APG(S, 0, CAP)), g.here(ours.APG(S, 1, CAP))
    zero, perp, mahiro = g.here(ours.CFGZeroStar(S)), g.here(ours.PerpNeg(S)), g.here(ours.Mahiro(S))
    negative = g.guider(cfg(S), u=g.n)
    dual, nested = g.here(ours.DualCFG(S, 2), middle=g.n), g.u + 2 * (g.n + S * (g.p - g.n) - g.u)
    found = [
        Difference("negative prompt", "diffusers, ComfyUI, Forge", "n + s (p − n)", "eq. 4: u + s (p − n)",
            apart(negative, g.here(three)), "`evaluations=2` here", apart(negative, g.here(two))),
        Difference("DNS by a negative prompt", "diffusers, ComfyUI, Forge", "p + s (u − p)", "eq. 19: u + s (u − p)",
            apart(g.guider(cfg(S), p=g.u, u=g.p), dns), "s + 1 there", apart(g.guider(cfg(S + 1), p=g.u, u=g.p), dns)),
        Difference("CFG", "diffusers, `use_original_formulation`", "p + s (p − u)", "eq. 3: u + s (p − u)",
            apart(g.guider(cfg(S, use_original_formulation=True)), plain), "s − 1 there",
            apart(g.guider(cfg(S - 1, use_original_formulation=True)), plain)),
        Difference("CFG", "azula", "p + s (p − u)", "eq. 3: u + s (p − u)",
            apart(g.p + S * (g.p - g.u), plain), "s − 1 there", apart(g.p + (S - 1) * (g.p - g.u), plain)),
        Difference("APG, η = 0", "diffusers, by default", "u + s (Δ⊥ + η Δ∥)", "p + (s − 1)(Δ⊥ + η Δ∥)",
            apart(g.guider(apg()), paper_apg), "`use_original_formulation`, s − 1",
            apart(g.guider(apg(S - 1, original=True)), paper_apg)),
        Difference("APG, η = 1, norm capped", "diffusers, by default", "u + s Δ", "p + (s − 1) Δ",
            apart(g.guider(apg(eta=1.0)), flat), "`use_original_formulation`, s − 1",
            apart(g.guider(apg(S - 1, 1.0, True)), flat)),
        Difference("APG, η = 0", "diffusers, model of ε", "split and capped in ε", "split and capped in D",
            apart(g.guider(apg(S - 1, original=True), "epsilon"), paper_apg)),
        Difference("APG, η = 0", "ComfyUI", "p + s (Δ⊥ + η Δ∥)", "p + (s − 1)(Δ⊥ + η Δ∥)",
            apart(comfy_apg(S, g.u, g.p), paper_apg), "s − 1 there", apart(comfy_apg(S - 1, g.u, g.p), paper_apg)),
        Difference("CFG-Zero*", "diffusers, model of ε", "α found in ε", "α found in velocities",
            apart(g.guider(ClassifierFreeZeroStarGuidance(S), "epsilon"), zero), "a flow model",
            apart(g.guider(ClassifierFreeZeroStarGuidance(S), "flow"), zero)),
        Difference("CFG-Zero*", "ComfyUI, flow model", "α found in velocities, applied to D", "applied to velocities",
            apart(comfy_zero_star(g), zero)),
        Difference("Perp-Neg", "ComfyUI, batch of 4", "products over the batch", "products of each sample",
            apart(perp_neg_of_batch(g.u, g.p, g.n), perp), "a batch of 1",
            apart(each(perp_neg_of_batch, g.u, g.p, g.n), perp)),
        Difference("Mahiro", "ComfyUI, batch of 4", "mean over the batch", "mean of each sample",
            apart(mahiro_of_batch(g.u, g.p), mahiro), "a batch of 1", apart(each(mahiro_of_batch, g.u, g.p), mahiro)),
        Difference("dual guidance", "ComfyUI, nested", "u + s₂ (m + s₁ (p − m) − u)", "u + s₂ (m − u) + s₁ (p − m)",
            apart(nested, dual), "s₁ s₂ here", apart(nested, g.here(ours.DualCFG(2 * S, 2), middle=g.n))),
    ]  # fmt: skip
    for sigma in (5.0, 2.0, 0.7):
        g = Given(sigma)
        theirs = g.guider(cfg(S, guidance_rescale=PHI), "epsilon")
        rescale = {space: g.here(ours.Rescale(ours.CFG(S), PHI, space)) for space in ("epsilon", "v")}
        name = f"rescale, σ = {sigma:g}"
        found.append(
            Difference(name, "diffusers, model of ε", "std in ε", "std in v (as ComfyUI)", apart(theirs, rescale["v"]),
                       '`space="epsilon"` here', apart(theirs, rescale["epsilon"]))
        )  # fmt: skip
    return found


def levels() -> list[Difference]:
    """What differs between noise levels."""
    betas: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    beta = EulerDiscreteScheduler(**betas, use_beta_sigmas=True)
    table = ((1 - beta.alphas_cumprod) / beta.alphas_cumprod).sqrt()
    beta.set_timesteps(20)
    discrete = SimpleNamespace(sigmas=table, log_sigmas=table.log(), sigma_min=table[0], sigma_max=table[-1])
    t = torch.linspace(1, 1 / 1000, 28, dtype=torch.float64)
    once, shifted, given = 3 * t / (1 + 2 * t), *(FlowMatchEulerDiscreteScheduler(shift=3.0) for _ in range(2))
    shifted.set_timesteps(28)
    given.set_timesteps(sigmas=t.tolist())
    return [
        Difference("beta schedule, 20 steps", "diffusers", "quantiles of σ", "quantiles of timesteps (as ComfyUI)",
            apart(beta.sigmas.double(), schedule("beta", discrete, 20).double())),
        Difference("SD 3's shift, 28 steps", "diffusers", "t shifted twice", "t shifted once",
            apart(shifted.sigmas[:-1].double(), once), "its `set_timesteps(sigmas=…)`",
            apart(given.sigmas[:-1].double(), once)),
    ]  # fmt: skip


def same() -> list[tuple[str, str, float]]:
    """Where a guider of diffusers computes what is computed here."""
    g = Given()
    pairs = [
        ("FDG", FrequencyDecoupledGuidance([9.0, 4.0]), ours.FDG(9, 4), ""),
        ("TCFG", TangentialClassifierFreeGuidance(S), ours.TCFG(S), "epsilon"),
        ("MAMBO-G", MagnitudeAwareGuidance(S), ours.MAMBOG(S), "flow"),
        ("CFG", ClassifierFreeGuidance(S), ours.CFG(S), "epsilon"),
    ]
    return [(name, type(g_).__name__, apart(g.guider(g_, space), g.here(rule))) for name, g_, rule, space in pairs]


def number(value: float) -> str:
    return "0" if value < ZERO else f"{value:.2g}"


def rows(head: tuple[str, ...], lines: Any) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ("---",) * len(head), *lines))


def tables() -> Mapping[str, str]:
    """Each table in Markdown, by its name."""
    found = [*guidances(), *levels()]
    apart_lines = [
        (d.name, d.peer, d.theirs, d.paper, number(d.apart), d.remedy and f"{d.remedy}: {number(d.left or 0)}")
        for d in found
    ]
    same_lines = [(name, f"`{guider}`", number(off)) for name, guider, off in same()]
    head = ("name", "whose", "theirs", "the paper's, or here", "apart", "what makes them one: apart")
    return {
        "who": rows(HEAD, WHO),
        "differences": rows(head, apart_lines),
        "same": rows(("name", "diffusers", "apart"), same_lines),
        "read": f"diffusers {diffusers.__version__}, as installed; of the others:\n\n"
        + rows(("project", "file", "commit"), [(who, f"`{file}`", commit) for who, file, commit in READ]),
    }


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, table in tables().items():
        place = re.compile(rf"(<!-- peers:{name} -->\n).*?(<!-- /peers:{name} -->)", re.S)
        page = place.sub(lambda match, table=table: match[1] + table + match[2], page)
    write_whole(PAGE, page.encode())


if __name__ == "__main__":
    main()
