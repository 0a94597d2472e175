"""Negative prompts captioned on the way, against plain ones and against the loop written out."""

import json

import pytest
import torch
from click.testing import CliRunner

import samplers
from captioning import Fixed
from dnp import DNP, DNPError, Sampling, paint
from dnp.cli.main import main
from dnp.on_the_way import OnTheWay
from guidance import CFG, NegPrompt

PROMPTS, SEEDS, TEXT = ["a red circle and a blue square", "a star"], [3, 1], "a white cross"
EULER, GUIDANCE = Sampling("euler", steps=4), NegPrompt(3, strength=1.5)


class Told:
    """Says the next of its texts for all pictures."""

    name = "told"

    def __init__(self, *texts):
        self.texts, self.shown = list(texts), []

    def __call__(self, images):
        self.shown.append(images)
        return [self.texts.pop(0)] * len(images)


def latents(model, guidance, negative="", hook=None):
    """As `paint`, without the decoding of the result."""

    class Undecoded:
        def __getattr__(self, name):
            return getattr(model, name)

        def decode(self, z):
            return list(z)

    texts = {"prompt": PROMPTS, "negative": [negative] * len(SEEDS)}
    images, evaluations = paint(Undecoded(), guidance, texts, SEEDS, EULER, hook=hook)
    return torch.stack(images), evaluations


def test_a_fixed_text_from_the_first_step_on_is_a_plain_negative_prompt(embedded):
    hook = OnTheWay(embedded, Fixed(TEXT), [0])
    found, evaluations = latents(embedded, GUIDANCE, hook=hook)
    expected, without = latents(embedded, GUIDANCE, TEXT)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert evaluations == without + 2 == 4 * 3 + 2  # the look at the picture, with no negative prompt yet
    assert [caption.used for caption in hook.captions[0]] == [TEXT, TEXT]


def test_no_steps_are_no_negative_prompt(embedded):
    found, evaluations = latents(embedded, GUIDANCE, hook=OnTheWay(embedded, Fixed(TEXT), []))
    torch.testing.assert_close(found, latents(embedded, CFG(3))[0], atol=1e-5, rtol=1e-5)
    assert evaluations == 4 * 2


def test_captions_hold_from_their_step_to_the_next(embedded):
    """Euler's method and u + s (p − u) − w (n − u) by hand, with another negative prompt from steps 1 and 3 on."""
    told = Told("a white cross", "a green heart")
    found, evaluations = latents(embedded, GUIDANCE, hook=OnTheWay(embedded, told, [1, 3]))
    sigmas = EULER.sigmas(embedded.denoiser)
    x = samplers.noise(embedded.shape, SEEDS) * (1 + sigmas[0] ** 2) ** 0.5
    texts, shown = {"p": PROMPTS, "u": ["", ""]}, []

    def guided(x, sigma, negative):
        level = sigma.expand(2)
        p, u, n = (
            embedded.denoiser(x, level, **embedded.encode(t)) for t in (texts["p"], texts["u"], [negative, negative])
        )
        return u + 3 * (p - u) - 1.5 * (n - u)

    with torch.no_grad():
        negative = ""
        for step, (sigma, below) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
            if step in (1, 3):
                shown.append(embedded.decode(guided(x, sigma, negative)))
                negative = {1: "a white cross", 3: "a green heart"}[step]
            denoised = guided(x, sigma, negative)
            x = x + (x - denoised) / sigma * (below - sigma)
    torch.testing.assert_close(found, x, atol=1e-4, rtol=1e-4)
    assert evaluations == 2 + (2 + 3) + 3 + (3 + 3)
    for mine, theirs in zip(shown, told.shown, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            differences = (abs(i - j) for i, j in zip(a.tobytes(), b.tobytes(), strict=True))
            assert max(differences) <= 2


def test_the_recipe_and_the_command_record_them(embedded, tmp_path):
    result = DNP(embedded, Told("a white cross", "a star"), GUIDANCE, sampling=EULER, at=[0, 2])(PROMPTS[0], seed=3)
    assert {step: c.used for step, c in result.on_the_way.items()} == {0: "a white cross", 2: "a star"}
    assert result.caption.used == "a star" and result.dns is None and set(result.images) == {"plain", "dnp"}
    with pytest.raises(DNPError, match="no step 4 to caption at: the steps go from 0 to 3"):
        DNP(embedded, Fixed(TEXT), GUIDANCE, sampling=EULER, at=[4])

    out = tmp_path / "run"
    words = ["generate", "a star", "--negative", "on-the-way", "--steps", "4", "--out", str(out)]
    done = CliRunner().invoke(main, [*words, "--caption-steps", "1,2"])
    assert done.exit_code == 0, done.output
    record = json.loads((out / "manifest.jsonl").read_text().splitlines()[-1])
    seen = record["captions_on_the_way"]
    assert [c["step"] for c in seen] == [1, 2] and seen[-1]["negative_prompt"] == record["negative_prompt"] != ""
    assert record["evaluations"] >= 4 * 2 + 2 * 2
    for wrong, says in ((["--caption-steps", "9"], "no step 9"), (["--caption-steps", "x"], "not a list of whole")):
        done = CliRunner().invoke(main, [*words[:-1], str(tmp_path / "other"), *wrong])
        assert done.exit_code == 2 and says in done.output and "Traceback" not in done.output
