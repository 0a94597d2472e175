r"""Captioning models that transformers can load."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from captioning.captioner import INSTRUCTION, CaptionError

if TYPE_CHECKING:
    import torch

TASK = "<CAPTION>"
r"""What Florence-2 is asked by default: the shortest of its captions. It also knows ``<DETAILED_CAPTION>`` and
``<MORE_DETAILED_CAPTION>``, which begin with "The image shows"."""

# The top level of a repository on the hub: no pickles, no second copies of the weights.
DOWNLOADED = ["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]
SKIPPED = ["*/*", "consolidated*", "*.fp16*"]


class Transformers:
    r"""An image-text model in transformers' format: BLIP-2 (the paper's), BLIP, Florence-2, or one with a chat
    template.

    Words are picked greedily, without repeating three in a row, since captions can loop. In float32 a caption
    is the same alone and in any batch; in half precision a near-tie between two words can fall differently
    with the size of the batch, which ``batch_size=1`` rules out.

    .. code-block:: python

        Transformers("Salesforce/blip2-opt-2.7b")(images)   # ["two cats sleeping on a couch", ...]

    References:
        | BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and
        | Large Language Models (Li et al., 2023)
        | https://arxiv.org/abs/2301.12597

    Args:
        path_or_hub_id: A folder written by ``save_pretrained`` of the model and of its processor, or a name
            on the hub. Only safetensors weights are loaded, and no code that comes with them is run.
        prompt: What to ask a chat model (by default :data:`INSTRUCTION`), the task of Florence-2 (by default
            :data:`TASK`), or how the caption begins or is asked for with the others (by default nothing). It is
            not part of the caption.
        max_new_tokens: The longest caption, in the model's own tokens.
        batch_size: How many images are captioned at a time.
        device: By default a GPU if there is one.
        dtype: By default the one of the checkpoint, but float32 on a CPU, where half precision is slow.
        cpu_offload: Keep the weights on the device only while captions are made, so that its memory is free for
            the pictures.

    Raises:
        CaptionError: There is no such model, or it cannot be loaded as a whole.
    """

    def __init__(
        self,
        path_or_hub_id: str | Path,
        *,
        prompt: str | None = None,
        max_new_tokens: int = 40,
        batch_size: int = 8,
        device: "str | torch.device | None" = None,
        dtype: "str | torch.dtype | None" = None,
        cpu_offload: bool = False,
    ) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        if max_new_tokens < 1 or batch_size < 1:
            raise CaptionError(f"max_new_tokens={max_new_tokens}, batch_size={batch_size}: at least 1 each")

        if device is None:
            mps = torch.backends.mps.is_available()
            device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
        device = torch.device(device)
        if dtype is None:
            dtype = torch.float32 if device.type == "cpu" else "auto"

        folder = _folder(path_or_hub_id)
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            processor: Any = AutoProcessor.from_pretrained(folder, **options)
            loaded: Any = AutoModelForImageTextToText.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # so that they are in the report, by name
                output_loading_info=True,
                **options,
            )
            model, report = loaded
        except Exception as error:  # damaged files raise errors of any kind
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise CaptionError(f"{path_or_hub_id} cannot be loaded as a captioner: {reason}") from error

        # Which transformers fills with random numbers.
        absent = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
        if absent:
            raise CaptionError(
                f"{path_or_hub_id} lacks {len(absent)} weights of a {type(model).__name__} or has them in "
                f"another shape, such as {absent[0]}: it is incomplete, or another kind of model"
            )
        if not hasattr(processor, "image_processor"):
            raise CaptionError(f"{path_or_hub_id} has no image processor: save the whole processor beside it")

        self.chat = getattr(processor, "chat_template", None) is not None
        asked = INSTRUCTION if self.chat else TASK if model.config.model_type == "florence2" else None
        self.prompt = asked if prompt is None else prompt
        # a small text decoder may have room for fewer, two of which its own begin and end take
        room = getattr(model.config.get_text_config(), "max_position_embeddings", None) or max_new_tokens + 2
        self.max_new_tokens = max(1, min(max_new_tokens, room - 2))
        self.batch_size = batch_size
        self.name = str(path_or_hub_id) + (f", prompt {self.prompt!r}" if self.prompt else "")
        self.processor = processor
        self.processor.tokenizer.padding_side = "left"  # what is generated goes on from the right
        self.device, self.rest = device, torch.device("cpu") if cpu_offload else device
        self.model = model.to(self.rest).eval().requires_grad_(False)

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        r"""Captions the images, ``batch_size`` at a time.

        Raises:
            CaptionError: The model gave NaN.
        """

        rgb = [image.convert("RGB") for image in images]
        batches = [rgb[i : i + self.batch_size] for i in range(0, len(rgb), self.batch_size)]
        self.model.to(self.device)
        try:
            return [caption for batch in batches for caption in self._batch(batch)]
        finally:
            self.model.to(self.rest)

    def _batch(self, images: list[Image.Image]) -> list[str]:
        import torch
        from transformers import LogitsProcessorList

        lengths: list[int] = []

        def watch(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            if scores.isnan().any():
                raise CaptionError(f"{self.name} gave NaN: try another dtype (float32) or check the weights")
            lengths.append(ids.shape[1])
            return scores

        with torch.inference_mode():
            ids = self.model.generate(
                **self._inputs(images).to(self.model.device, self.model.dtype),
                max_new_tokens=self.max_new_tokens,
                do_sample=False,
                num_beams=1,
                no_repeat_ngram_size=3,
                logits_processor=LogitsProcessorList([watch]),
            )

        # Whether the prompt is part of what generate returns, and how long it has become, differs between
        # models. The number of tokens there were before the first new one says it for all of them.
        texts: list[str] = self.processor.batch_decode(ids[:, lengths[0] :], skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _inputs(self, images: list[Image.Image]) -> Any:
        if self.chat:
            chats = [[{"role": "user", "content": self._content(image)}] for image in images]
            return self.processor.apply_chat_template(
                chats,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs={"padding": True},
            )
        text = {"text": [self.prompt] * len(images), "padding": True} if self.prompt else {}
        return self.processor(images=images, **text, return_tensors="pt")

    def _content(self, image: Image.Image) -> list[dict[str, Any]]:
        return [{"type": "image", "image": image}, {"type": "text", "text": self.prompt}]


def _folder(path_or_hub_id: str | Path) -> Path:
    # A folder with a model in it, downloaded if need be. The hub is asked once; without a network this finds
    # what was downloaded before, and fails at once where from_pretrained would try every file again and
    # again.
    from huggingface_hub import snapshot_download

    folder = Path(path_or_hub_id).expanduser()
    if not folder.exists():
        if isinstance(path_or_hub_id, Path) or str(path_or_hub_id).startswith((".", "/", "~")):
            raise CaptionError(f"there is no folder {path_or_hub_id}")
        try:
            where = snapshot_download(path_or_hub_id, allow_patterns=DOWNLOADED, ignore_patterns=SKIPPED)
            folder = Path(where)
        except (OSError, ValueError) as error:
            raise CaptionError(
                f"{path_or_hub_id} is neither a folder here nor a model that the hub gave: check the name, "
                f"download it first (hf download {path_or_hub_id}), or pass a folder"
            ) from error

    if not (folder / "config.json").is_file():
        raise CaptionError(f"{path_or_hub_id} is not a transformers model: a folder without a config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = ", only pickled ones" if any(folder.glob("*.bin")) else ""
        raise CaptionError(
            f"{path_or_hub_id} has no safetensors weights{pickled}, and no others are loaded: "
            f"write it with save_pretrained of transformers 5"
        )
    return folder
