"""Where the files of a model are, by its name."""

from __future__ import annotations

from pathlib import Path

from dnp.errors import DNPError, first_line

EMBEDDED = Path(__file__).parent.parent / "embedded"


def locate(name: str) -> Path:
    """The directory or file of a model: the embedded one, one by its path, or a hub name's files in the local cache.

    A hub name is downloaded unless it is cached: configurations, tokenizers and safetensors weights, no pickles.

    Raises:
        DNPError: no such directory, or the hub does not give it.
    """
    if name == "embedded":
        return EMBEDDED
    path = Path(name).expanduser()
    if path.is_dir() or path.is_file():
        return path
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise DNPError(
            f"there is no model directory {name!r}, nor such a file: give 'embedded', a directory in diffusers' "
            "format, a .safetensors file, or a hub name such as CompVis/stable-diffusion-v1-4"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=["*.json", "*.txt", "*/*.safetensors"],
                ignore_patterns=["*.fp16.*", "*.non_ema.*", "safety_checker/*"],
            )
        )
    except Exception as error:  # the hub's client has many kinds of errors, and no base class of them
        if type(error).__name__ in ("GatedRepoError", "RepositoryNotFoundError"):
            raise DNPError(
                f"the hub gives {name!r} only to those who are logged in and were granted it, if there is one: "
                "accept its terms on its page, then log in with `hf auth login` or set HF_TOKEN"
            ) from None
        raise DNPError(
            f"{name!r} is neither a directory here nor to be had from the hub "
            f"({first_line(error)}): download it elsewhere and give its directory"
        ) from None
