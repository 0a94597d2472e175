"""Draws the pictures of docs/attention.md, with whatever model is embedded, and the first prompts of its set.

python docs/figures/attention.py
"""

from pathlib import Path

from PIL import Image

from dnp import DNP, Sampling, StableDiffusion, paint
from dnp.attention.attend_and_excite import AttendAndExcite
from dnp.attention.word_maps import word_maps
from dnp.captioners import captioner_of
from dnp.runs.contact_sheet import Cell, sheet
from eval.prompts import prompt_set
from guidance import CFG, parse

HERE, SEEDS = Path(__file__).parent, (0, 1)
model = StableDiffusion("embedded", "cpu")
how = model.defaults
sampling = Sampling(how.sampler, how.schedule, how.steps)
prompts = [prompt.text for prompt in prompt_set("world", 1)][-2:]


def save(name: str, picture: Image.Image) -> None:
    picture.quantize(128).save(HERE / f"{name}.png", optimize=True)


save("attention-maps", word_maps(model, prompts[0], SEEDS, guidance=CFG(how.scale), sampling=sampling))

captioner = captioner_of(model, how.captioner)
final, dns = parse(how.guidance, s=how.scale, w=how.strength), parse(how.dns, s=how.scale, w=how.strength)
rows = []
for prompt in prompts:
    for seed in SEEDS:
        options = {"guidance": final, "dns": dns, "plain": CFG(how.scale), "sampling": sampling}
        how_to = AttendAndExcite()
        without, attended = (DNP(model, captioner, attend=each, **options)(prompt, seed) for each in (None, how_to))
        alone = DNP(model, None, attend=how_to, **options)(prompt, seed)
        negative = f"without: {without.caption.used}"
        rows.append(
            [
                Cell(without.plain, "plain", prompt),
                Cell(without.dnp, "DNP", negative),
                Cell(alone.plain, "Attend-and-Excite", f"{alone.evaluations['plain']} evaluations"),
                Cell(attended.dnp, "Attend-and-Excite + DNP", negative),
            ]
        )
save("attend-and-excite", sheet("Attend-and-Excite, alone and with DNP", rows))

rows = []
for prompt in prompts:
    row = [Cell(DNP(model, None, plain=CFG(how.scale), sampling=sampling)(prompt, 0).plain, "plain", prompt)]
    for name in ("identity", "blur", "skip", "shuffle"):
        formula = f"CFG({how.scale}) + 2*(p - ε({name}))"
        (picture,), _ = paint(model, parse(formula), {"prompt": [prompt]}, [0], sampling)
        row.append(Cell(picture, name, formula))
    rows.append(row)
save("perturbed", sheet("Away from a perturbed network", rows))
