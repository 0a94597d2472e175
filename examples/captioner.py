"""DNP with a captioner of your own: anything that has a name and turns pictures into texts.

This one knows no model: it names the colour that a picture has most of. Run it: python examples/captioner.py
"""

from collections.abc import Sequence

from PIL import Image, ImageColor

from dnp import DNP, Sampling
from dnp.models.stable_diffusion import StableDiffusion

COLOURS = "red orange yellow green blue purple pink black gray white".split()


class MainColour:
    name = "main colour"  # as recorded beside the pictures

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        return [f"a {self.of(image)} background" for image in images]

    def of(self, image: Image.Image) -> str:
        _, most = max(image.convert("RGB").quantize(8).convert("RGB").getcolors())
        return min(COLOURS, key=lambda c: sum((a - b) ** 2 for a, b in zip(ImageColor.getrgb(c), most, strict=True)))


model = StableDiffusion("embedded")  # or the folder of a Stable Diffusion
recipe = DNP(model, MainColour(), sampling=Sampling("dpmpp_2m", "karras", 8))
result = recipe("a red balloon and a blue bowl", seed=0)
print(f"negative prompt: {result.caption.used}")
for arm, image in result.images.items():
    image.save(f"{arm}.png")
