"""The metric in docs/evaluation.md runs as it is printed, on a tiny model of the same kind."""

import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image

from dnp.models.locate import EMBEDDED
from eval.metrics.registry import METRICS
from eval.scores import read_scores

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()


def test_a_metric_of_ones_own(tmp_path, monkeypatch):
    torch.manual_seed(0)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(EMBEDDED / "tokenizer")
    tiny = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = transformers.CLIPTextConfig(
        **tiny, vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    vision = transformers.CLIPVisionConfig(**tiny, image_size=32, patch_size=16)
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = transformers.CLIPProcessor(image_processor=images, tokenizer=tokenizer)
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", lambda name: model)
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", lambda name: processor)
    lines = []
    for i, prompt in enumerate(("a red balloon", "a blue bowl and a apple")):
        Image.new("RGB", (40, 40), (255 * i, 90, 30)).save(tmp_path / f"{i}.png")
        lines.append(json.dumps({"path": f"{i}.png", "prompt": prompt}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    exec(re.search(r"```python\n(.*?)```", PAGE, re.S)[1], {"folder": tmp_path})
    values = [float(row["value"]) for row in read_scores(tmp_path)]
    with torch.no_grad():
        for value, i, prompt in zip(values, (0, 1), ("a red balloon", "a blue bowl and a apple"), strict=True):
            x = model.get_image_features(images(Image.open(tmp_path / f"{i}.png"), return_tensors="pt").pixel_values)
            y = model.get_text_features(**tokenizer(prompt, return_tensors="pt"))
            x, y = (getattr(found, "pooler_output", found) for found in (x, y))
            assert value == pytest.approx(100 * torch.cosine_similarity(x, y).item(), abs=1e-3)


def test_the_commands_exist():
    from dnp.cli.main import main

    for name in re.findall(r"^    dnp (\w+)", PAGE, re.M):
        assert name in main.commands


def test_the_table_of_metrics_is_the_registry():
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", PAGE, re.M)
    assert rows[1:] == [(name, entry.says) for name, entry in METRICS.items()]
