r"""`make bench`: a guided step beside the plain closure that people write by hand for the same formula.

Both ask the embedded model the same at the same :math:`(x, \sigma)`, so what differs is what the guided denoiser
costs besides. The aim is a ratio of at most 1.03.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dnp.models.stable_diffusion import StableDiffusion
from dnp.speed.timing import interleave, ratio
from guidance import CFG, DNS, Guidance, NegPrompt, Rescale

Denoiser = Callable[..., Tensor]
Closure = Callable[..., Tensor]
S = 7.5


def ask(model: Denoiser, x: Tensor, sigma: Tensor, *conditions: Tensor) -> tuple[Tensor, ...]:
    r"""The denoised predictions under conditions :math:`(B, tokens, width)`, in one forward."""
    count = len(conditions)
    return model(torch.cat([x] * count), torch.cat([sigma] * count), encoder_hidden_states=torch.cat(conditions)).chunk(
        count
    )


def cfg(model: Denoiser, x: Tensor, sigma: Tensor, *, prompt: Tensor, empty: Tensor, **_: Tensor) -> Tensor:
    u, p = ask(model, x, sigma, empty, prompt)
    return u + S * (p - u)


def dns(model: Denoiser, x: Tensor, sigma: Tensor, *, prompt: Tensor, empty: Tensor, **_: Tensor) -> Tensor:
    u, p = ask(model, x, sigma, empty, prompt)
    return u + S * (u - p)


def negative(model: Denoiser, x: Tensor, sigma: Tensor, *, prompt: Tensor, empty: Tensor, negative: Tensor) -> Tensor:
    u, n, p = ask(model, x, sigma, empty, negative, prompt)
    return u + S * (p - n)


def rescaled(model: Denoiser, x: Tensor, sigma: Tensor, *, prompt: Tensor, empty: Tensor, negative: Tensor) -> Tensor:
    u, n, p = ask(model, x, sigma, empty, negative, prompt)
    level = sigma.view(-1, 1, 1, 1)
    g, plain = (x - (u + S * (p - n))) / level, (x - p) / level
    factor = plain.std((1, 2, 3), keepdim=True) / g.std((1, 2, 3), keepdim=True)
    return x - level * (0.7 * factor * g + 0.3 * g)


CASES: list[tuple[Guidance, Closure]] = [
    (CFG(S), cfg),
    (DNS(S), dns),
    (NegPrompt(S, evaluations=3), negative),
    (Rescale(NegPrompt(S, evaluations=3), 0.7), rescaled),
]


def case(
    model: StableDiffusion, guidance: Guidance, closure: Closure, batch: int
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    r"""One guided step and the same by hand, both without arguments."""
    texts: Mapping[str, str] = {"prompt": "a red balloon", "negative": "a pink background", "empty": ""}
    encoded = {name: model.encode([text] * batch)["encoder_hidden_states"] for name, text in texts.items()}
    conditions = {name: {"encoder_hidden_states": value} for name, value in encoded.items()}
    sigma = torch.full((batch,), 3.0)
    x = torch.randn(batch, *model.shape, generator=torch.Generator().manual_seed(0)) * 3.2
    guided = guidance.wrap(model.denoiser)

    @torch.no_grad()
    def ours() -> Tensor:
        return guided(x, sigma, **conditions)

    @torch.no_grad()
    def theirs() -> Tensor:
        return closure(model.denoiser, x, sigma, **encoded)

    return ours, theirs


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dnp.speed.bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--calls", type=int, default=400, help="pairs of calls at batch 1 (a tenth at 16)")
    calls = parser.parse_args().calls
    torch.set_num_threads(1)
    model = StableDiffusion()
    print("A guided step / the closure by hand, the median of pairs with its 95 % interval; one thread. Aim: 1.03.\n")
    print("| formula | batch | wall | processor | a step, ms | pairs |\n| --- | --- | --- | --- | --- | --- |")
    for guidance, closure in CASES:
        for batch, pairs in ((1, calls), (16, calls // 10)):
            ours, theirs = case(model, guidance, closure, batch)
            ours(), theirs()
            pair = interleave(ours, theirs, pairs)
            each = sorted(pair.cpu[0])[pairs // 2] * 1000
            print(
                f"| `{guidance!r}` | {batch} | {ratio(*pair.wall)} | {ratio(*pair.cpu)} | {each:.1f} | {pairs} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
