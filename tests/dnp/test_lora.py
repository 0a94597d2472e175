"""LoRA files, against diffusers' pipeline with the same ones loaded."""

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

import samplers
from dnp import DNPError, Sampling
from dnp.models.stable_diffusion import StableDiffusion
from guidance import CFG


@pytest.fixture(scope="module")
def lora(pipeline_of, tmp_path_factory):
    """family, seed → a LoRA of it with random weights, as diffusers' pipeline writes one."""

    def lora(family, seed):
        pipeline, folder = pipeline_of(family), tmp_path_factory.mktemp("lora")
        torch.manual_seed(seed)
        pipeline.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_v"]))
        layers = get_peft_model_state_dict(pipeline.unet)
        pipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name=f"{family}-{seed}.safetensors")
        return folder / f"{family}-{seed}.safetensors"

    return lora


@pytest.mark.parametrize("family", ["1", "XL"])
def test_latents_equal_the_pipeline_s_with_the_same_loras(family, lora, checkpoint, pipeline_of, model_of, latents_of):
    first, second = lora(family, 0), lora(family, 1)
    pipeline = pipeline_of(family)
    for name, path in (("first", first), ("second", second)):
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name)
    pipeline.set_adapters(["first", "second"], [0.7, 1.0])
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    model = StableDiffusion(str(checkpoint(family)), "cpu", loras=[f"{first}:0.7", str(second)])
    theirs = pipeline(
        "a cat", guidance_scale=4, num_inference_steps=3, latents=samplers.noise(model.shape, [0]), output_type="latent"
    ).images
    texts, sampling = {"prompt": ["a cat"]}, Sampling("euler", "leading", 3)
    ours = latents_of(model, CFG(4), texts, [0], sampling)
    assert (ours - theirs).norm() < 1e-4 * theirs.norm()
    without = latents_of(model_of(family), CFG(4), texts, [0], sampling)
    assert (ours - without).norm() > 1e-3 * without.norm()
    records = model.options["loras"]
    assert [(record["file"], record["weight"]) for record in records] == [(first.name, 0.7), (second.name, 1.0)]
    assert len({record["sha256"] for record in records}) == 2


def test_what_does_not_fit(lora, checkpoint, tmp_path):
    other, model = lora("XL", 0), str(checkpoint("2"))
    foreign, broken = tmp_path / "foreign.safetensors", tmp_path / "broken.safetensors"
    save_file({"x": torch.ones(2)}, foreign)
    broken.write_bytes(other.read_bytes()[:-9])
    for text, message in (
        (str(other), f"the LoRA {other} does not fit the model ("),
        (f"{foreign}:2", f"the LoRA {foreign} does not fit the model ("),
        (str(broken), f"the LoRA {broken} is truncated or no safetensors file"),
        (str(tmp_path / "no.safetensors"), "there is no LoRA file"),
    ):
        with pytest.raises(DNPError) as caught:
            StableDiffusion(model, "cpu", loras=[text])
        assert message in str(caught.value) and "\n" not in str(caught.value)
