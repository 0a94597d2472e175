import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoProcessor,
    Blip2ForConditionalGeneration,
    BlipForConditionalGeneration,
    Florence2ForConditionalGeneration,
    LlavaForConditionalGeneration,
    Qwen2_5_VLForConditionalGeneration,
    SmolVLMForConditionalGeneration,
)

from captioning import INSTRUCTION, TASK, Captioner, CaptionError, Transformers

FAMILIES = ["blip", "blip2", "llava", "qwen", "smolvlm", "florence"]
MODELS = {
    "blip": BlipForConditionalGeneration,
    "blip-2": Blip2ForConditionalGeneration,
    "llava": LlavaForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    "smolvlm": SmolVLMForConditionalGeneration,
    "florence2": Florence2ForConditionalGeneration,
}
# What the template of a chat model makes of an image
SEEN = {"llava": "<image>", "smolvlm": "<image>", "qwen2_5_vl": "<|vision_start|> <image> <|vision_end|>"}
GREEDY = {"max_new_tokens": 8, "do_sample": False, "no_repeat_ngram_size": 3}


@pytest.fixture(params=FAMILIES)
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def by_hand(folder: Path, images: list[Image.Image], prompt: str | None) -> list[str]:
    """One image after the other, as the models' own documentation captions it."""
    processor = AutoProcessor.from_pretrained(folder)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    model = MODELS[kind].from_pretrained(folder).eval()
    captions = []
    for image in images:
        text: dict[str, object] = {} if prompt is None else {"text": prompt}
        if kind in SEEN:
            text = {"text": [f"user : {SEEN[kind]} {prompt or INSTRUCTION}"]}
        if kind == "florence2":
            text = {"text": prompt or TASK}
        inputs = processor(images=[image] if kind in SEEN else image, **text, return_tensors="pt")
        ids = model.generate(**inputs, **GREEDY)
        if kind == "florence2":
            said = processor.batch_decode(ids, skip_special_tokens=False)[0]
            caption = processor.post_process_generation(said, task=text["text"])[text["text"]]
            # a trained one does not say these
            captions.append(" ".join(word for word in caption.split() if word not in ("<image>", "<global-img>")))
            continue
        if kind in SEEN:
            start = inputs["input_ids"].shape[1]
        elif kind == "blip-2":
            start = 3 + 1 + (len(prompt.split()) if prompt else 0)  # queries, BOS, one token a word
        else:
            start = 1 + (len(prompt.split()) if prompt else 0)  # BOS; the closing EOS of the prompt is dropped
        captions.append(processor.decode(ids[0, start:], skip_special_tokens=True).strip())
    return captions


@pytest.mark.parametrize("prompted", [False, True])
def test_equals_generate_by_hand(folder: Path, images: list[Image.Image], prompted: bool) -> None:
    prompt = ("<DETAILED_CAPTION>" if "florence" in folder.name else "a photo of") if prompted else None
    captions = Transformers(folder, prompt=prompt, max_new_tokens=8, device="cpu")(images)
    assert captions == by_hand(folder, [image.convert("RGB") for image in images], prompt)
    assert len(set(captions)) > 3  # the models do look at the images


def test_a_caption_depends_on_its_own_image_only(folder: Path, images: list[Image.Image]) -> None:
    captioner = Transformers(folder, max_new_tokens=8)
    captions = captioner(images)  # in one batch
    captioner.batch_size = 3
    assert captioner(images[::-1]) == captions[::-1]
    assert captioner([]) == []


def test_is_a_captioner_and_records_what_made_the_caption(blip: Path, llava: Path) -> None:
    assert isinstance(Transformers(blip), Captioner)
    assert Transformers(blip).name == str(blip)
    assert Transformers(blip, prompt="a photo of").name == f"{blip}, prompt 'a photo of'"
    assert INSTRUCTION in Transformers(llava).name


def test_half_precision_weights_run_in_float32_on_a_cpu(blip: Path, images: list[Image.Image], tmp_path: Path) -> None:
    half = damaged(blip, tmp_path, lambda weights: {k: v.half() for k, v in weights.items()})
    captioner = Transformers(half, device="cpu", max_new_tokens=8)
    assert captioner.model.dtype == torch.float32
    assert all(captioner(images))
    assert Transformers(half, device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16


def test_weights_are_on_the_device_only_while_captions_are_made(blip: Path, images: list[Image.Image]) -> None:
    captions = Transformers(blip, device="cpu", max_new_tokens=8)(images)
    captioner = Transformers(blip, device="cpu", max_new_tokens=8, cpu_offload=True)
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    moves: list[torch.device] = []
    captioner.device, captioner.model.to = cuda, moves.append  # a machine without one can tell where they would go
    assert captioner(images) == captions and moves == [cuda, cpu]
    captioner.model.generate = None
    with pytest.raises(TypeError):
        captioner(images)
    assert moves == [cuda, cpu] * 2  # whatever happens


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_offload_frees_a_gpu(blip: Path, images: list[Image.Image]) -> None:
    before = torch.cuda.memory_allocated()
    captioner = Transformers(blip, device="cuda", max_new_tokens=8, cpu_offload=True)
    assert len(captioner(images)) == len(images)
    assert captioner.model.device.type == "cpu" and torch.cuda.memory_allocated() == before


Weights = dict[str, torch.Tensor]


def damaged(model: Path, tmp_path: Path, change: Callable[[Weights], Weights]) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    weights = change(load_file(folder / "model.safetensors"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def refused(path_or_hub_id: str | Path) -> str:
    """The one line that says why."""
    with pytest.raises(CaptionError) as error:
        Transformers(path_or_hub_id, device="cpu")
    message = str(error.value)
    assert "\n" not in message and str(path_or_hub_id) in message
    return message


def test_no_such_folder(tmp_path: Path) -> None:
    assert "there is no folder" in refused(tmp_path / "nothing")
    assert "there is no folder" in refused("./nothing")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    assert "without a config.json" in refused(tmp_path)


def test_a_file(blip: Path) -> None:
    assert "without a config.json" in refused(blip / "model.safetensors")


def test_pickled_weights(blip: Path, tmp_path: Path) -> None:
    folder = damaged(blip, tmp_path, lambda weights: weights)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "no safetensors weights, only pickled ones" in refused(folder)
    (folder / "pytorch_model.bin").unlink()
    assert "no safetensors weights, and" in refused(folder)


def test_truncated_weights(blip: Path, tmp_path: Path) -> None:
    folder = damaged(blip, tmp_path, lambda weights: weights)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "cannot be loaded as a captioner: " in refused(folder)


def test_incomplete_weights(blip: Path, tmp_path: Path) -> None:
    name = "vision_model.post_layernorm.weight"
    folder = damaged(blip, tmp_path, lambda w: {k: v for k, v in w.items() if k != name})
    message = refused(folder)
    assert "lacks 1 weights of a BlipForConditionalGeneration" in message and name in message


def test_weights_of_another_shape(blip: Path, tmp_path: Path) -> None:
    name = "vision_model.post_layernorm.weight"
    message = refused(damaged(blip, tmp_path, lambda w: w | {name: torch.ones(3)}))
    assert "another shape" in message and name in message


def test_another_kind_of_model(blip: Path, tmp_path: Path) -> None:
    folder = damaged(blip, tmp_path, lambda weights: weights)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    assert "cannot be loaded as a captioner: " in refused(folder)


def test_no_processor(blip: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(blip / name, tmp_path)
    assert "processor" in refused(tmp_path)


def test_nan(blip: Path, images: list[Image.Image], tmp_path: Path) -> None:
    name = "vision_model.post_layernorm.weight"
    captioner = Transformers(damaged(blip, tmp_path, lambda w: w | {name: w[name] * torch.nan}))
    with pytest.raises(CaptionError, match="gave NaN"):
        captioner(images)


@pytest.mark.parametrize("option", ["max_new_tokens", "batch_size"])
def test_nothing_to_do(blip: Path, option: str) -> None:
    with pytest.raises(CaptionError, match=f"{option}=0"):
        Transformers(blip, **{option: 0})  # type: ignore[arg-type]


def test_a_hub_name_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    message = refused("Salesforce/blip2-opt-2.7b")
    assert "download it first (hf download Salesforce/blip2-opt-2.7b), or pass a folder" in message
    refused("no/such/folder")  # which cannot be a name on the hub


def test_a_hub_model_that_was_downloaded_before(
    monkeypatch: pytest.MonkeyPatch, blip: Path, images: list[Image.Image], tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0" * 40
    repository = tmp_path / "models--someone--tiny"
    shutil.copytree(blip, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)

    captioner = Transformers("someone/tiny", max_new_tokens=8)
    assert captioner.name == "someone/tiny"
    assert captioner(images) == Transformers(blip, max_new_tokens=8)(images)


def test_importing_the_room_is_light() -> None:
    code = "import sys, captioning; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
