r"""Captioning models behind an OpenAI-compatible address."""

import base64
import io
import json
import math
import os
import time
from collections import deque
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any

from PIL import Image

from captioning.address import OPENAI, host_of, split, this_machine
from captioning.captioner import INSTRUCTION, CaptionError, NoCaption
from captioning.post import Unreachable, Unreadable, post

LONGEST = 20_000
r"""Characters of a caption. A longer text is none."""
AGAIN = "what was made before is kept, and the same command goes on from there"


class Endpoint:
    r"""A model that answers at an OpenAI-compatible address: OpenAI's own (the paper's GPT-4V), vLLM,
    ``transformers serve``, llama.cpp, and most others.

    The key is taken from the environment (``OPENAI_API_KEY``) and is in no name, record or message. It is sent to the
    address alone: redirects are not followed, and without encryption (``http://``) it goes only to this machine. Words
    are picked greedily if the model can; a server still need not answer the same twice.

    An image for which the model gives no text (it refuses, is stopped by a filter, or thinks until its tokens are used
    up) has a :class:`captioning.NoCaption`, so that the other images of a batch keep theirs.

    .. code-block:: python

        Endpoint("gpt-4o")(images)
        Endpoint("Qwen/Qwen2.5-VL-7B-Instruct", "http://127.0.0.1:8000/v1")(images)

    Args:
        model: The model's name there.
        base_url: The address; by default ``OPENAI_BASE_URL``, or OpenAI's.
        prompt: What to ask.
        max_new_tokens: The longest answer, in the model's own tokens. A model that thinks first spends them on
            that, too.
        at_once: How many images are asked about at the same time.
        timeout: Seconds to wait for one answer, from the look-up of the name to the last byte.
        retries: How often to ask again after a time-out, a lost connection, 408, 409, 429, 5xx or an answer that is no
            chat completion, each time after a longer wait, or the one that the server names.
        key_over_http: Send the key unencrypted to another machine. By default only if ``DNP_KEY_OVER_HTTP=1`` is set in
            the environment.

    Raises:
        CaptionError: No key, an address that is not valid or has a key in it, or a key that would travel unencrypted.
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
        key_over_http: bool | None = None,
    ) -> None:
        url = (base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI).rstrip("/")
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        host = host_of(url, model, self._key)
        if not model:
            raise CaptionError(f"which model at {url}? Name it, as in openai:gpt-4o")
        if max_new_tokens < 1 or at_once < 1:
            raise CaptionError(f"max_new_tokens={max_new_tokens}, at_once={at_once}: at least 1 each")
        if not (timeout > 0 and math.isfinite(timeout)) or retries < 0:
            raise CaptionError(f"timeout={timeout}, retries={retries}: seconds above 0, and at least 0 retries")

        self.model, self.url, self.prompt, self.at_once = model, url, prompt, at_once
        self.timeout, self.retries = timeout, retries
        self.name = f"openai:{model}@{url}" + (f", prompt {prompt!r}" if prompt != INSTRUCTION else "")
        self.options: dict[str, Any] = {"temperature": 0, "max_completion_tokens": max_new_tokens}

        if not self._key and url == OPENAI:
            raise CaptionError(f"{self.name} needs a key: set OPENAI_API_KEY in the environment")
        if not all(33 <= ord(c) < 127 for c in self._key):
            raise CaptionError("OPENAI_API_KEY holds characters that no key has: set it again")
        self._here = this_machine(host)
        if key_over_http is None:
            key_over_http = os.environ.get("DNP_KEY_OVER_HTTP") == "1"
        if self._key and url.lower().startswith("http:") and not self._here and not key_over_http:
            raise CaptionError(
                f"{self.name} would get the key in OPENAI_API_KEY unencrypted: use an address with https://, "
                "unset the key if that server needs none, or set DNP_KEY_OVER_HTTP=1 to send it all the same"
            )

    @classmethod
    def at(cls, name: str) -> "Endpoint":
        r"""By a name such as an endpoint has itself: ``openai:MODEL`` or ``openai:MODEL@http://HOST/v1``.

        Raises:
            CaptionError: An address without ``http://`` or ``https://``; and as the class.
        """
        return cls(*split(name.removeprefix("openai:")))

    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        r"""Captions the images, ``at_once`` at a time.

        Raises:
            CaptionError: The endpoint did not answer, or not with a chat completion.
        """

        todo, answers = deque(enumerate(images)), SimpleQueue[tuple[int, str | BaseException]]()

        def work() -> None:
            while todo:
                try:
                    i, image = todo.popleft()
                except IndexError:  # another thread took the last one
                    return
                try:
                    answers.put((i, self._ask(image)))
                except BaseException as error:
                    answers.put((i, error))
                    return

        for _ in range(min(self.at_once, len(images))):
            Thread(target=work, daemon=True).start()  # so that Ctrl-C does not wait for answers
        captions = [""] * len(images)
        for _ in images:
            i, said = answers.get()
            if isinstance(said, BaseException):
                todo.clear()
                raise said
            captions[i] = said
        return captions

    def _ask(self, image: Image.Image) -> str:
        content = [
            {"type": "image_url", "image_url": {"url": _uri(image)}},
            {"type": "text", "text": self.prompt},
        ]
        asked = {"model": self.model, "messages": [{"role": "user", "content": content}]}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        tries = 0
        while True:
            options, wait = self.options, 0.5 * 2**tries
            body = json.dumps(asked | options).encode()
            tries += 1
            after = f"after {tries} {'try' if tries == 1 else 'tries'}"
            try:
                status, said, data = post(
                    f"{self.url}/chat/completions", body, headers, self.timeout, proxies=not self._here
                )
            except TimeoutError:
                why = f"gave no answer within {self.timeout:g} s, {after}: is it overloaded? {AGAIN}"
            except Unreachable:
                why = f"cannot be reached, {after}: is the server running, and the address right? {AGAIN}"
            except Unreadable as error:
                why = f"gave an answer that {error}, {after}: is that an OpenAI-compatible address?"
            else:
                answer = _json(data)
                if status == 200 and isinstance(found := self._text(answer), str):
                    return found
                if status == 400 and (fault := _error(answer)).get("code") == "content_filter":
                    return NoCaption(f"{self.name} was stopped by its content filter: take another captioner")
                if status == 400 and (refused := fault.get("param")) in options:
                    # OpenAI's models that think take no temperature
                    self.options = {key: value for key, value in options.items() if key != refused}
                    tries -= 1
                    continue
                why = self._why(status, data, after)
                if status not in (200, 408, 409, 429) and status < 500:
                    raise CaptionError(f"{self.name} {why}")
                wait = _wait(said.get("retry-after", "")) or wait
            if tries > self.retries:
                raise CaptionError(f"{self.name} {why}")
            time.sleep(wait)

    def _text(self, answer: Any) -> str | None:
        # The caption in a chat completion; None if the answer is none.
        try:
            choice = answer["choices"][0]
            message, cut = choice["message"], choice.get("finish_reason") == "length"
            text = message.get("refusal") or message.get("content")
        except (AttributeError, IndexError, KeyError, TypeError):
            return None
        if text is not None and not isinstance(text, str):
            return NoCaption(f"{self.name} gave a caption that is no text ({type(text).__name__}): take another model")
        if len(text := text or "") > LONGEST:
            return NoCaption(f"{self.name} gave a caption of {len(text)} characters: take another model")
        if cut and not text.strip():
            return NoCaption(
                f"{self.name} thought through all of its {self.options.get('max_completion_tokens')} tokens "
                "and said nothing: take a model that does not think, or set max_new_tokens higher"
            )
        # JSON can hold halves of characters, which can be written to no file
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return self._hidden(text).strip()

    def _why(self, status: int, data: bytes, after: str) -> str:
        if status == 200:
            what = "something else than a chat completion" if data.strip() else "nothing at all"
            return f"answered with {what}, {after}: is that an OpenAI-compatible address? It mostly ends in /v1"
        if status in (401, 403):
            key = "does not take the key in OPENAI_API_KEY" if self._key else "wants a key in OPENAI_API_KEY"
            return f"{key} ({status}): set one in the environment that is valid there"
        if 300 <= status < 400:
            return f"sends on to another address ({status}), which is not followed: give that address itself"
        if status == 404:
            return "knows no such model or address (404): check both; the address mostly ends in /v1"
        if status == 429:
            return f"takes no more for now (429), {after}: wait, or see to your quota there; {AGAIN}"
        if status in (408, 409) or status >= 500:
            return f"failed ({status}), {after}: see its log or wait; {AGAIN}"
        said = " ".join(self._hidden(data[:2000].decode("utf-8", "replace")).split())
        return f"does not take the request ({status}): {said[:200]}"

    def _hidden(self, text: str) -> str:
        # What a server says may repeat the key. Placeholders such as "x" or "EMPTY" are no secret.
        return text.replace(self._key, "…") if len(self._key) >= 12 else text


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):  # no JSON, no UTF-8, numbers without end; nested without end
        return None


def _error(answer: Any) -> dict[str, Any]:
    found = answer.get("error") if isinstance(answer, dict) else None
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}


def _wait(said: str) -> float:
    # The seconds that a server asks for, 0 if it does not, or asks for too many.
    try:
        seconds = float(said)
    except ValueError:
        return 0
    return seconds if 0 < seconds <= 60 else 0


def _uri(image: Image.Image) -> str:
    data = io.BytesIO()
    image.convert("RGB").save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
