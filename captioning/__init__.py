r"""How an image becomes a short text.

Diffusion-negative prompting translates an image into words: the user describes it, or a captioning model
does. This room holds those translators and knows nothing of what the image is or what its text is for.

- :class:`Captioner`: the protocol, images in, one raw text per image out.
- :class:`Person`: somebody at the terminal.
- :class:`Transformers`: any image-text model that transformers can load (BLIP-2, BLIP, Florence-2, the chat models).
- :class:`Endpoint`: a model at an OpenAI-compatible address.
- :class:`Fixed`, :class:`Universal`, :class:`RandomCaption`: the controls, which never look at the image.
- :func:`captions_of`: one usable caption per image: what a person wrote as it is, what a model said made
  :func:`usable`, cut to what a text encoder can take, with the raw text kept beside it.

.. code-block:: python

    captioner = Transformers("Salesforce/blip2-opt-2.7b")
    captions = captions_of(captioner, images, tokenizer)

Importing this room imports neither torch nor transformers.
"""

from captioning.captioner import INSTRUCTION, Captioner, CaptionError, NoCaption
from captioning.controls import UNIVERSAL, Fixed, RandomCaption, Universal
from captioning.endpoint import Endpoint
from captioning.person import Person
from captioning.transformers_model import TASK, Transformers
from captioning.usable import MAX_TOKENS, MAX_WORDS, Caption, captions_of, usable

__all__ = [
    "INSTRUCTION",
    "MAX_TOKENS",
    "MAX_WORDS",
    "TASK",
    "UNIVERSAL",
    "Caption",
    "CaptionError",
    "Captioner",
    "Endpoint",
    "Fixed",
    "NoCaption",
    "Person",
    "RandomCaption",
    "Transformers",
    "Universal",
    "captions_of",
    "usable",
]
