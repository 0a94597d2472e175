"""What tests of several rooms share. None of them needs a network, and none may ask for one."""

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it once


@pytest.fixture(scope="session")
def embedded():
    """The embedded model, loaded once: whoever changes its weights does so on a copy."""
    from dnp.stable_diffusion import StableDiffusion

    return StableDiffusion("embedded", device="cpu")
