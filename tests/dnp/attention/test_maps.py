"""Captured attention against a computation by hand, and what a capture must leave alone."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.pipelines.pag.pag_utils import PAGMixin

from dnp import DNPError
from dnp.attention.layers import select
from dnp.attention.maps import capture, gradient
from dnp.attention.words import Words, words_of

PROMPTS = ["a red circle and a blue square", "a cat"]


@pytest.fixture(params=["embedded", "1", "2", "XL"])
def model(request, model_of):
    return model_of(request.param)


def some(model, seed=0, size=None):
    torch.manual_seed(seed)
    channels, height, width = model.shape
    return torch.randn(2, channels, *(size or (height, width))), torch.tensor([3.0, 0.5])


def level(model):
    """Where the tiny models attend: the upper level, and an XL the lower."""
    return (model.shape[1] // 2,) * 2 if model.texts.xl or model.name == "embedded" else model.shape[1:]


def by_hand(attn, hidden, text):
    """Softmax of the scaled products of queries and keys."""
    q, k = (
        (layer(x)).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        for layer, x in ((attn.to_q, hidden), (attn.to_k, text))
    )
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)


def test_maps_equal_a_computation_by_hand_and_leave_the_prediction_alone(model):
    x, sigma = some(model)
    condition, grid = model.encode(PROMPTS), level(model)
    seen = {}

    def look(name):
        def look(attn, args, kwargs):
            seen[name] = attn, args[0], kwargs.get("encoder_hidden_states")

        return look

    handles = [
        layer.register_forward_pre_hook(look(name), with_kwargs=True)
        for name, layer in model.unet.named_modules()
        if name.endswith((".attn1", ".attn2"))
    ]
    plain = model.denoiser(x, sigma, **condition)
    for handle in handles:
        handle.remove()
    with capture(model.unet, model.shape[1:], grid, own=True) as maps:
        inside = model.denoiser(x, sigma, **condition)
    assert torch.equal(inside, plain) and torch.equal(model.denoiser(x, sigma, **condition), plain)
    area = grid[0] * grid[1]
    for kind, found in (("attn2", maps.cross), ("attn1", maps.own)):
        expected = [
            by_hand(a, h, h if t is None else t)
            for n, (a, h, t) in seen.items()
            if n.endswith(kind) and h.shape[1] == area
        ]
        assert len(found) == len(expected) > 0
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape and (a - b).abs().max() < 1e-5
            assert (a.sum(-1) - 1).abs().max() < 1e-5
    assert maps.mean.shape == (2, area, condition["encoder_hidden_states"].shape[1])
    assert all(not layer._forward_pre_hooks for layer in model.unet.modules())


def test_the_gradient_is_that_of_a_whole_forward(model):
    x, sigma = some(model, 1)
    condition, grid = model.encode(PROMPTS), level(model)
    calls = []
    after = model.unet.conv_out.register_forward_pre_hook(lambda *_: calls.append(1))
    losses, found = gradient(model, x, sigma, condition, lambda maps: maps.mean[..., 2].square().sum(-1), grid)
    assert not calls  # what follows the last map is not run
    after.remove()
    x.requires_grad_()
    with capture(model.unet, model.shape[1:], grid) as maps:
        model.denoiser(x, sigma, **condition)
    expected = maps.mean[..., 2].square().sum(-1)
    assert torch.allclose(losses, expected, rtol=1e-6)
    (grad,) = torch.autograd.grad(expected.sum(), x)
    assert grad.norm() > 0 and (found - grad).norm() < 1e-5 * grad.norm()
    one, sample = gradient(
        model,
        x[1:].detach(),
        sigma[1:],
        model.encode(PROMPTS[1:]),
        lambda maps: maps.mean[..., 2].square().sum(-1),
        grid,
    )
    assert (sample - found[1:]).norm() < 1e-5 * sample.norm()


def test_sizes_that_are_no_square_and_none_of_the_network_s(model_of):
    model = model_of("embedded")
    x, sigma = some(model, size=(12, 20))
    with capture(model.unet, (12, 20), (6, 10)) as maps:
        model.denoiser(x, sigma, **model.encode(PROMPTS))
    assert maps.cross[0].shape[-2] == 60
    with pytest.raises(DNPError, match="does not attend to the text at 12x20: for these latents there are 6x10, 3x5"):
        with capture(model.unet, (12, 20), (12, 20)):
            pass
    with pytest.raises(DNPError, match="Linear is no U-Net with attention"):
        with capture(torch.nn.Linear(1, 1), (8, 8)):
            pass


def test_an_image_adapter_goes_on_acting_and_its_processors_stay(model_of, checkpoint):
    unet = UNet2DConditionModel.from_pretrained(checkpoint("1") / "unet")
    torch.manual_seed(0)
    width, tokens = unet.config.cross_attention_dim, 4
    state = {"image_proj": {}, "ip_adapter": {}}
    state["image_proj"]["proj.weight"] = torch.randn(tokens * width, 32) / 6
    state["image_proj"]["proj.bias"] = torch.zeros(tokens * width)
    state["image_proj"]["norm.weight"], state["image_proj"]["norm.bias"] = torch.ones(width), torch.zeros(width)
    for i, name in enumerate(name for name in unet.attn_processors if "attn2" in name):
        layer = unet.get_submodule(name.removesuffix(".processor"))
        for key in ("to_k_ip", "to_v_ip"):
            state["ip_adapter"][f"{2 * i + 1}.{key}.weight"] = torch.randn(layer.to_k.weight.shape) / 8
    unet._load_ip_adapter_weights([state])
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([500, 500])
    text, images = torch.randn(2, 77, width), [torch.randn(2, 1, 32), torch.randn(2, 1, 32)]
    before = unet.attn_processors

    @torch.no_grad()
    def predict(image):
        return unet(x, t, encoder_hidden_states=text, added_cond_kwargs={"image_embeds": [images[image]]}).sample

    outside = [predict(0), predict(1)]
    assert (outside[0] - outside[1]).norm() > 1e-3 * outside[0].norm()
    with capture(unet, (8, 8), (8, 8)) as maps:
        inside = [predict(0), predict(1)]
    assert all(torch.equal(a, b) for a, b in zip(inside, outside, strict=True))
    assert all(layer.shape[-1] == 77 and (layer.sum(-1) - 1).abs().max() < 1e-5 for layer in maps.cross)
    with pytest.raises(KeyboardInterrupt):
        with capture(unet, (8, 8), (8, 8)):
            predict(0)
            raise KeyboardInterrupt
    assert torch.equal(predict(0), outside[0])
    assert all(unet.attn_processors[name] is processor for name, processor in before.items())


def test_layers_by_name_are_whole_parts_of_a_path():
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=8,
        transformer_layers_per_block=[12, 1],
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    one = "down_blocks.0.attentions.0.transformer_blocks.1"
    assert list(select(unet, "self", [one])) == [one] and select(unet, "self", [one])[one] is unet.get_submodule(
        one + ".attn1"
    )
    assert len(select(unet, "cross", ["down_blocks.0"])) == 12 and len(select(unet, "block", ["mid_block", one])) == 2
    with pytest.raises(DNPError) as caught:
        select(unet, "self", ["down_blocks.0.attentions.0.transformer_blocks.12"])
    assert "down_blocks.0.attentions.0.transformer_blocks.0 to 11, up_blocks.1" in str(caught.value)
    # diffusers' own search: parts of names, so that 1 is 10 and 11 as well, wherever they are
    theirs = PAGMixin()
    theirs.unet = unet
    theirs.set_pag_applied_layers(one)
    theirs._set_pag_attn_processor([one], True)
    assert len(theirs.pag_attn_processors) == 3


def test_words_and_their_tokens(model_of):
    texts = model_of("embedded").texts

    def tokens(prompt, word):
        ids = texts.tokenizers[0](prompt, add_special_tokens=False).input_ids
        return [texts.tokenizers[0].convert_ids_to_tokens(ids[i]) for i in Words(texts, prompt).tokens(word)]

    for prompt, word in (("a cartoon of a car", "car"), ("A CAR, and a cartoon", "car")):
        found = Words(texts, prompt)
        assert len(found.places(word)) == 1 and "".join(tokens(prompt, word)) == "car</w>"
    assert "".join(tokens("a red circle and a teddy bear", "teddy bear")) == "teddy</w>bear</w>"
    twice = Words(texts, "a cat and a cat")
    assert len(twice.places("cat")) == 2 and twice.tokens("cat") == twice.tokens("cat#1") + twice.tokens("cat#2")
    for word, message in (
        ("toon", "the word 'toon' is not in the prompt"),
        ("dog", "the word 'dog' is not in the prompt"),
        ("cat#3", "says 'cat' 2 times"),
        ("", "is not in the prompt"),
    ):
        with pytest.raises(DNPError, match=message):
            Words(texts, "a cat and a cat in a cartoon").places(word)


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("a cat and a dog", ["cat", "dog"]),
        ("a red car and a white clock", ["car", "clock"]),
        ("a cat with a bow", ["cat", "bow"]),
        ("a cat and a cat", ["cat#1", "cat#2"]),
        ("a band with a wand.", ["band", "wand"]),
        ("a red car", ["car"]),
        ("a cat and a dog with a bow", ["cat", "dog", "bow"]),
        ("a ((big) cat:1.2) and a (dog:0.8)", ["cat", "dog"]),
        (r"a \(big\) cat and a dog \(a cat\)", ["cat#1", "cat#2"]),
    ],
)
def test_words_by_default_are_the_last_of_each_entity(model_of, prompt, expected):
    assert words_of(model_of("embedded").texts, prompt, None)[1] == expected


def test_tokens_of_long_prompts_and_of_short_ones_beside_them(model_of):
    model = model_of("1")
    long = "a " + "very " * 80 + "big car and a small clock"
    x, sigma = some(model)
    with capture(model.unet, (8, 8), (8, 8)) as maps:
        model.denoiser(x, sigma, **model.encode([long, "a car"]))
    with capture(model.unet, (8, 8), (8, 8)) as alone:
        model.denoiser(x[1:], sigma[1:], **model.encode(["a car"]))
    assert maps.mean.shape[-1] == 154
    short, said = Words(model.texts, "a car"), Words(model.texts, long)
    assert (short.maps(maps.mean[1]) - short.maps(alone.mean[0])).abs().max() < 1e-6
    (token,) = said.tokens("car")
    ids = model.texts.parts(long).flatten()
    assert ids[token // 75 * 77 + 1 + token % 75] == model.tokenizer("car", add_special_tokens=False).input_ids[0]
    assert torch.equal(said.maps(maps.mean[0])[:, token], maps.mean[0][:, token // 75 * 77 + 1 + token % 75])
