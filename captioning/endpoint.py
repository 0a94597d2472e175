r"""Captioning models behind an OpenAI-compatible address."""

import base64
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from captioning.captioner import INSTRUCTION, CaptionError

OPENAI = "https://api.openai.com/v1"


class Endpoint:
    r"""A model that answers at an OpenAI-compatible address: OpenAI's own (the paper's GPT-4V), vLLM,
    ``transformers serve``, llama.cpp, and most others.

    The key is taken from the environment (``OPENAI_API_KEY``) and is in no name, record or message. Words are
    picked greedily where the model can; a server still need not answer the same twice. What the model refuses to
    describe is an empty caption, or says so in its own words: :func:`captioning.usable` takes neither.

    .. code-block:: python

        Endpoint("gpt-4o")(images)
        Endpoint("Qwen/Qwen2.5-VL-7B-Instruct", "http://127.0.0.1:8000/v1")(images)

    Arguments:
        model: The model's name there.
        base_url: The address; by default ``OPENAI_BASE_URL``, or OpenAI's.
        prompt: What to ask.
        max_new_tokens: The longest answer, in the model's own tokens. A model that thinks first spends them on
            that, too.
        at_once: How many images are asked about at the same time.
        timeout: Seconds to wait for one answer.
        retries: How often to ask again after a time-out, a lost connection, 429 or 5xx, each time after a longer
            wait, or the one that the server names.

    Raises:
        CaptionError: No package ``openai``, no key, or an address that is none or has a key in it.
    """

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        *,
        prompt: str = INSTRUCTION,
        max_new_tokens: int = 500,
        at_once: int = 4,
        timeout: float = 60,
        retries: int = 3,
    ) -> None:
        url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
        try:
            parts = urlsplit(url)
            whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # such as a port that is no number
            whole = False
        if whole and (parts.username or parts.password or parts.query or parts.fragment):
            raise CaptionError(
                f"the address of {model!r} at {parts.hostname} has more than a host and a path: "
                "a key belongs into the environment, as OPENAI_API_KEY"
            )
        if not whole:
            raise CaptionError(f"{url!r} is no address of an endpoint, as http://127.0.0.1:8000/v1 is one")
        if not model:
            raise CaptionError(f"which model at {url}? Name it, as in openai:gpt-4o")
        if max_new_tokens < 1 or at_once < 1:
            raise CaptionError(f"max_new_tokens={max_new_tokens}, at_once={at_once}: at least 1 each")

        self.model, self.url, self.prompt, self.at_once = model, url, prompt, at_once
        self.timeout, self.retries = timeout, retries
        self.name = f"openai:{model}@{url}" + (f", prompt {prompt!r}" if prompt != INSTRUCTION else "")
        self.options: dict[str, Any] = {"temperature": 0, "max_completion_tokens": max_new_tokens}

        self._key = os.environ.get("OPENAI_API_KEY", "")
        if not self._key and url == OPENAI:
            raise CaptionError(f"{self.name} wants a key: set OPENAI_API_KEY in the environment")
        try:
            import openai
        except ImportError:
            raise CaptionError(f"{self.name} needs the package openai: pip install 'dnp[openai]'") from None
        key = self._key or "none"  # a local server wants none
        self.client = openai.OpenAI(api_key=key, base_url=url, timeout=timeout, max_retries=retries)

    @classmethod
    def at(cls, name: str) -> "Endpoint":
        r"""By a name such as an endpoint has itself: ``openai:MODEL`` or ``openai:MODEL@http://HOST/v1``."""
        model, _, rest = name.removeprefix("openai:").partition("@http")
        return cls(model, "http" + rest if rest else None)

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        r"""Captions the images, ``at_once`` at a time.

        Raises:
            CaptionError: The endpoint did not answer, or not with a chat completion.
        """

        with ThreadPoolExecutor(self.at_once) as pool:
            return list(pool.map(self._ask, images))  # the first error drops those that were not yet asked

    def _ask(self, image: Image.Image) -> str:
        import openai

        messages: Any = [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": _uri(image)}},
                    {"type": "text", "text": self.prompt},
                ],
            }
        ]
        options = self.options
        try:
            answer: Any = self.client.chat.completions.create(model=self.model, messages=messages, **options)
        except openai.BadRequestError as error:
            if error.code == "content_filter":
                return ""
            if error.param not in options:
                raise self._failed(error) from None
            # OpenAI's models that think take no temperature
            self.options = {key: value for key, value in options.items() if key != error.param}
            return self._ask(image)
        except openai.OpenAIError as error:
            raise self._failed(error) from None

        try:
            choice = answer.choices[0]
            text = choice.message.refusal or choice.message.content or ""
            cut = choice.finish_reason == "length"
        except (AttributeError, IndexError, TypeError):
            raise CaptionError(
                f"{self.name} answered with something else than a chat completion: "
                "is that an OpenAI-compatible address? It mostly ends in /v1"
            ) from None
        if cut and not text.strip():
            raise CaptionError(
                f"{self.name} thought through all of its {options.get('max_completion_tokens')} tokens "
                "and said nothing: take a model that does not think, or set max_new_tokens higher"
            )
        return str(text).strip()

    def _failed(self, error: Exception) -> CaptionError:
        # What the server says may have the key in it, or be long
        import openai

        tried = f"after {self.retries + 1} tries"
        again = "what was made before is kept, and the same command goes on from there"
        if isinstance(error, openai.APITimeoutError):
            why = f"gave no answer within {self.timeout:g} s, {tried}: see whether it is overloaded; {again}"
        elif isinstance(error, openai.APIConnectionError):
            why = f"cannot be reached, {tried}: is the server running, and the address right? {again}"
        elif not isinstance(error, openai.APIStatusError):
            why = f"did not give a readable answer ({type(error).__name__}): is that an OpenAI-compatible address?"
        elif error.status_code in (401, 403):
            key = "does not take the key in OPENAI_API_KEY" if self._key else "wants a key in OPENAI_API_KEY"
            why = f"{key} ({error.status_code}): set one in the environment that is valid there"
        elif error.status_code == 404:
            why = "knows no such model or address (404): check both; the address mostly ends in /v1"
        elif error.status_code == 429:
            why = f"takes no more for now (429), {tried}: wait, or see to your quota there; {again}"
        elif error.status_code >= 500:
            why = f"failed ({error.status_code}), {tried}: see its log or wait; {again}"
        else:
            said = " ".join(error.response.text.split())
            said = said.replace(self._key, "…") if self._key else said
            why = f"does not take the request ({error.status_code}): {said[:200]}"
        return CaptionError(f"{self.name} {why}")


def _uri(image: Image.Image) -> str:
    data = io.BytesIO()
    image.convert("RGB").save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
