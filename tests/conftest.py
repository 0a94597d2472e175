"""What tests of several rooms share. None of them needs a network, and none may ask for one."""

import json
import os
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it once


@pytest.fixture(scope="session")
def embedded():
    """The embedded model, loaded once: whoever changes its weights does so on a copy."""
    from dnp.models.stable_diffusion import StableDiffusion

    return StableDiffusion("embedded", device="cpu")


@pytest.fixture
def latent_diffusion():
    import torch

    class LatentDiffusion(torch.nn.Module):
        """What k-diffusion's CompVisDenoiser and the page want of a model."""

        def __init__(self):
            super().__init__()
            betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
            self.register_buffer("alphas_cumprod", (1 - betas).cumprod(0))

        def apply_model(self, x, t, cond):
            return torch.tanh(x + cond.mean((1, 2))[:, None, None, None])

        def get_learned_conditioning(self, texts):
            return torch.stack([torch.full((7, 8), len(text) / 10) for text in texts])

        def decode_first_stage(self, z):
            return z[:, :3]

    return LatentDiffusion()


class Answers:
    """An HTTP server that answers as it is told: for what no real one says on demand.

    `says` maps the first part of an address to (status, body), to a function of the request that gives these, or to
    None: it never answers.
    """

    def __init__(self):
        self.says, self.asked, self.over = {}, Counter(), threading.Event()
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                which = self.path.split("/")[1]
                told.asked[which] += 1
                says = told.says[which]
                if says is None:
                    told.over.wait(30)
                    return
                status, body = says(request) if callable(says) else says
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if isinstance(body, bytes) else "application/json")
                self.end_headers()
                self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def url(self, which):
        return f"http://127.0.0.1:{self.server.server_port}/{which}/v1"

    @staticmethod
    def completion(message, finish_reason="stop"):
        choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", **message}}
        return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


@pytest.fixture
def answers():
    answers = Answers()
    thread = threading.Thread(target=answers.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield answers
    answers.over.set()
    answers.server.shutdown()
    thread.join()
    answers.server.server_close()
