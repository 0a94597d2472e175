"""The folder of `dnp generate`: results of the recipe, seed by seed, and their contact sheet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from dnp.recipe import Result
from dnp.runs.contact_sheet import Cell, sheet
from dnp.runs.record import DNS, Record, png
from dnp.runs.run import Run
from eval.manifest import write_whole
from eval.pictures import pictures

_SHEET_ROWS = 16
_HEADINGS = {"plain": "plain guidance", "dns": "diffusion-negative", "dnp": "with the negative prompt"}
_STAGES = list(_HEADINGS)


class Generated(Run):
    """A run whose arms are the stages of the recipe, of one prompt."""

    def done(self) -> set[int]:
        """The seeds whose pictures are all there."""
        last = "plain" if self.settings["source"] == "none" else "dnp"
        seeds = {record["seed"] for record in self.records.values() if record["arm"] == last}
        return seeds - {record["seed"] for record in self.lost.values()}

    def begun(self, seed: int) -> Result:
        """What is there of a seed that lacks its last picture: its captioner failed."""
        result = Result(self.settings["prompt"], seed)
        made = [record for record in self.records.values() if record["seed"] == seed and record["arm"] != "dnp"]
        for record, image in pictures(self.path, made, problems=[]):  # what is lost or changed is made again
            arm = record["arm"]
            result.images[arm] = image
            result.evaluations[arm], result.seconds[arm] = record["evaluations"], record["seconds"]
        return result

    def keep(self, results: Iterable[Result]) -> None:
        """Write the pictures of results, as far as they got."""
        self.add([self._record(r, arm).line(image, r.seconds[arm]) for r in results for arm, image in r.images.items()])

    def _record(self, result: Result, arm: str) -> Record:
        s = self.settings
        caption = result.caption if arm != "plain" else None
        on_the_way = [
            {"step": step, "caption": c.raw, "negative_prompt": c.used} for step, c in result.on_the_way.items()
        ]
        return Record(
            path=f"{result.seed:05d}-{arm}.png",
            prompt=result.prompt,
            seed=result.seed,
            arm=arm,
            source={"plain": "none", "dns": DNS}.get(arm, s["source"]),
            guidance=s[{"dnp": "guidance"}.get(arm, arm)],
            scale=None if arm == "dns" else s["scale"],  # the formula of DNS has its own
            strength=s["strength"] if arm == "dnp" else None,
            negative_prompt=caption.used if caption and arm == "dnp" else "",
            caption=caption.raw if caption else "",
            captioner=s["captioner"],
            captions_on_the_way=on_the_way if arm == "dnp" else [],
            model=s["model"],
            model_options=s.get("model_options", {}),
            start={key: s[key] for key in ("init", "denoise", "mask") if key in s},
            dtype=s["dtype"],
            sampler=s["sampler"],
            schedule=s["schedule"],
            steps=s["dns_steps" if arm == "dns" else "steps"],
            evaluations=result.evaluations[arm],
        )

    def finish(self) -> None:
        """The manifest in order of the seeds."""
        self.tidy(lambda record: (record["seed"], _STAGES.index(record["arm"])))

    def write_sheet(self) -> Path:
        """The contact sheet of the first seeds, made of the files."""
        rows: list[list[Cell]] = []
        for seed in sorted(self.done())[:_SHEET_ROWS]:
            found = {record["arm"]: record for record in self.records.values() if record["seed"] == seed}
            cells = []
            for arm in _STAGES:
                if record := found.get(arm):
                    texts = {"plain": record["prompt"], "dns": f"“{record['caption']}”"}
                    text = texts.get(arm, f"negative prompt “{record['negative_prompt']}”")
                    with Image.open(self.path / record["path"]) as image:
                        cells.append(Cell(image.convert("RGB"), f"{_HEADINGS[arm]}, seed {seed}", text))
            rows.append(cells)
        path = self.path / "sheet.png"
        write_whole(path, png(sheet(self.settings["prompt"], rows)))
        return path
