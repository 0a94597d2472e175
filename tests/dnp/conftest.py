"""Copies of the embedded model to break, and its latents undecoded."""

import os
import shutil

import pytest
import torch

from dnp import paint
from dnp.model import EMBEDDED


class Latents:
    """A model whose pictures are its latents."""

    def __init__(self, model):
        self.model = model

    def __getattr__(self, name):
        return getattr(self.model, name)

    def decode(self, latents):
        return list(latents)


@pytest.fixture(scope="session")
def latents_of():
    """As `paint`, without the decoding."""

    def latents_of(model, guidance, prompts, seeds, sampling):
        return torch.stack(paint(Latents(model), guidance, prompts, seeds, sampling)[0])

    return latents_of


@pytest.fixture
def copy(tmp_path):
    """A copy of the embedded model. Its files are hard links: replace them, never write into them."""

    def link(source, target):
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy(source, target)

    return shutil.copytree(EMBEDDED, tmp_path / "copy", copy_function=link)


@pytest.fixture(scope="session")
def replaced():
    """Put another file in the place of one, which may be a link."""

    def replaced(path, data):
        path.unlink(missing_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    return replaced
