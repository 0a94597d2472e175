"""Tiny random models, each saved in the format of the real ones by transformers itself."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    CLIPTokenizer,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

SIDE = 8
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
WORDS = "a the red blue green circle square cat dog on and with of photo user : describe this image".split()
WORDS += "<|vision_start|> <|vision_end|> <|video_pad|> <fake_token_around_image> <global-img>".split()
WORDS += [f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)]
VOCABULARY = {w: i for i, w in enumerate([*SPECIAL.values(), "<image>", *WORDS])}
MARKS = [word for word in VOCABULARY if word.startswith("<") and word not in SPECIAL.values()]
IMAGE_TOKEN = VOCABULARY["<image>"]

VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 4,
}
TEXT = {"vocab_size": len(VOCABULARY), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
CHAT = (
    "{% for m in messages %}user : {% for c in m['content'] %}"
    "{{ '<image>' if c['type'] == 'image' else ' ' + c['text'] }}{% endfor %}{% endfor %}"
)


def tokenizer(template: str, **options: dict[str, str]) -> PreTrainedTokenizerFast:
    """One token a word, and the special tokens that the model's real tokenizer adds."""
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = [(t, VOCABULARY[t]) for t in ("<s>", "</s>")]
    words.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=words, extra_special_tokens=MARKS, **SPECIAL, **options)


def save(model: torch.nn.Module, processor: object, folder: Path) -> Path:
    # Weights large enough that what is seen decides what is said, and that no two words are near a tie.
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = "norm" in name.lower() and name.endswith("weight")
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + scale)
    model.save_pretrained(folder)  # type: ignore[operator]
    processor.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder


@pytest.fixture(scope="session")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = TEXT | SMALL | {"projection_dim": 16, "sep_token_id": 2, "max_position_embeddings": 64}
    model = BlipForConditionalGeneration(BlipConfig(vision_config=VISION, text_config=text, projection_dim=16))
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    processor = BlipProcessor(images, tokenizer("<s> $A </s>"))
    return save(model, processor, tmp_path_factory.mktemp("blip"))


@pytest.fixture(scope="session")
def blip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    opt = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 32, "num_hidden_layers": 1}
    text = TEXT | opt | {"model_type": "opt", "num_attention_heads": 2, "max_position_embeddings": 64}
    qformer = SMALL | {"vocab_size": len(VOCABULARY), "encoder_hidden_size": 16}
    config = Blip2Config(
        vision_config=VISION,
        qformer_config=qformer,
        text_config=text,
        num_query_tokens=3,
        image_token_index=IMAGE_TOKEN,
    )
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    processor = Blip2Processor(images, tokenizer("<s> $A"), num_query_tokens=3)
    return save(Blip2ForConditionalGeneration(config), processor, tmp_path_factory.mktemp("blip2"))


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model, which is prompted through its template."""
    config = LlavaConfig(
        vision_config=VISION | {"model_type": "clip_vision_model", "projection_dim": 16},
        text_config=TEXT | SMALL | {"model_type": "llama", "num_key_value_heads": 2},
        image_token_index=IMAGE_TOKEN,
        vision_feature_layer=-1,
    )
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        tokenizer("<s> $A"),
        patch_size=4,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    return save(LlavaForConditionalGeneration(config), processor, tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model whose images have as many tokens as their size wants."""
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "patch_size": 4}
    config = Qwen2_5_VLConfig(
        vision_config=vision | {"out_hidden_size": 16, "window_size": 16, "fullatt_block_indexes": [0]},
        text_config=TEXT
        | SMALL
        | {"num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}},
        image_token_id=IMAGE_TOKEN,
        video_token_id=VOCABULARY["<|video_pad|>"],
        vision_start_token_id=VOCABULARY["<|vision_start|>"],
        vision_end_token_id=VOCABULARY["<|vision_end|>"],
    )
    size = {"shortest_edge": SIDE**2, "longest_edge": (3 * SIDE) ** 2}
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size=size, patch_size=4),
        tokenizer("<s> $A", model_specific_special_tokens={"image_token": "<image>"}),
        Qwen2VLVideoProcessor(),
        chat_template=CHAT.replace("<image>", "<|vision_start|> <image> <|vision_end|>"),
    )
    return save(Qwen2_5_VLForConditionalGeneration(config), processor, tmp_path_factory.mktemp("qwen"))


@pytest.fixture(scope="session")
def smolvlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model that looks at the parts of an image and at the whole."""
    config = SmolVLMConfig(
        vision_config=VISION,
        text_config=TEXT | SMALL | {"model_type": "llama", "num_key_value_heads": 2},
        image_token_id=IMAGE_TOKEN,
        scale_factor=2,
    )
    sizes = {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**sizes),
        tokenizer("<s> $A"),
        SmolVLMVideoProcessor(**sizes),
        image_seq_len=1,
        chat_template=CHAT,
    )
    return save(SmolVLMForConditionalGeneration(config), processor, tmp_path_factory.mktemp("smolvlm"))


@pytest.fixture(scope="session")
def florence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is asked for a caption by a task's token."""
    bart = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    text = TEXT | bart | {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64}
    vision = {"depths": [1, 1], "patch_size": [7, 3], "patch_stride": [2, 2], "patch_padding": [3, 1]}
    config = Florence2Config(
        vision_config=vision
        | {"patch_prenorm": [False, True], "embed_dim": [8, 16], "num_heads": [2, 2], "num_groups": [2, 2]}
        | {"window_size": 2, "projection_dim": 16, "drop_path_rate": 0.0},
        text_config=text | {"model_type": "bart", "decoder_start_token_id": 2, "forced_bos_token_id": 1},
        image_token_id=IMAGE_TOKEN,
    )
    images = CLIPImageProcessor(size={"height": SIDE, "width": SIDE}, do_center_crop=False)
    images.image_seq_length = (SIDE // 4) ** 2 + 1  # and one for the whole
    words = tokenizer("<s> $A </s>", model_specific_special_tokens={"image_token": "<image>"})
    processor = Florence2Processor(images, words, post_processor_config={"pure_text": {}})
    return save(Florence2ForConditionalGeneration(config), processor, tmp_path_factory.mktemp("florence"))


@pytest.fixture(scope="session")
def clip_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer, of bytes and a few merges."""
    letters = list(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("th", "e</w>"), ("r", "e"), ("re", "d</w>")]
    tokens = [*letters, *(c + "</w>" for c in letters), *("".join(m) for m in merges)]
    tokens = sorted(set(tokens)) + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer({t: i for i, t in enumerate(tokens)}, merges, model_max_length=77)


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    """Plain squares of different colours, and one of another size and mode."""
    colours = ["red", "blue", "green", "white", "black", "orange"]
    return [Image.new("RGB", (SIDE, SIDE), c) for c in colours] + [Image.new("L", (20, 12), 90)]
