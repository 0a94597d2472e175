"""Against `transformers serve` with a tiny model, and against what no real server says on demand."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from captioning import INSTRUCTION, Captioner, CaptionError, Endpoint, usable

KEY = "sk-the-secret-of-this-test"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture(scope="session")
def served(llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server with the tiny LLaVA, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(llava)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with open(log, "wb") as sink, subprocess.Popen(command, stdout=sink, stderr=sink, env=environment) as server:
        try:
            for _ in range(1200):
                assert server.poll() is None, log.read_text()
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10).close()
                    break
                except OSError:
                    time.sleep(0.1)
            else:
                pytest.fail(log.read_text())
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()


def test_equals_generate_by_hand(served: str, llava: Path, images: list[Image.Image]) -> None:
    captioner = Endpoint(str(llava), served, max_new_tokens=8, at_once=3)
    processor = AutoProcessor.from_pretrained(llava)
    model = LlavaForConditionalGeneration.from_pretrained(llava).eval()
    by_hand = []
    for image in images:
        text = f"user : <image> {INSTRUCTION}"
        inputs = processor(images=image.convert("RGB"), text=text, return_tensors="pt")
        ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        by_hand.append(processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    assert len(set(by_hand)) > 3  # the order is seen
    assert captioner(images) == by_hand
    assert captioner(images[::-1]) == by_hand[::-1]
    assert captioner([]) == []
    assert isinstance(captioner, Captioner) and captioner.name == f"openai:{llava}@{served}"


def test_a_name_is_how_to_ask_for_it(served: str, llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = Endpoint.at(f"openai:{llava}@{served}")
    monkeypatch.setenv("OPENAI_BASE_URL", served + "/")
    assert Endpoint.at(f"openai:{llava}").name == Endpoint.at(given.name).name == given.name
    monkeypatch.delenv("OPENAI_BASE_URL")
    assert Endpoint.at("openai:org/m@main").name == "openai:org/m@main@https://api.openai.com/v1"
    assert Endpoint("m", prompt="What is it?").name != Endpoint("m").name


def test_a_server_without_that_model(served: str, images: list[Image.Image]) -> None:
    with pytest.raises(CaptionError, match=r"does not take the request \(400\): .*pinned.*'other'"):
        Endpoint("other", served)(images)


# --- what no real server says on demand


def refused(captioner: Endpoint, images: list[Image.Image]) -> str:
    with pytest.raises(CaptionError) as error:
        captioner(images)
    message = str(error.value)
    assert captioner.name in message and "\n" not in message and KEY not in message
    return message


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "does not take the key in OPENAI_API_KEY (401): set one"),
        (403, "does not take the key in OPENAI_API_KEY (403): set one"),
        (404, "knows no such model or address (404): check both"),
        (422, 'does not take the request (422): {"error": {"message": "the key … and'),
        (429, "takes no more for now (429), after 2 tries: wait"),
        (500, "failed (500), after 2 tries: see its log or wait"),
    ],
)
def test_a_status(answers, images: list[Image.Image], status: int, remedy: str) -> None:
    answers.says["x"] = (status, {"error": {"message": f"the key {KEY} and\nmore"}})
    assert remedy in refused(Endpoint("m", answers.url("x"), retries=1, at_once=1), images[:1])
    assert answers.asked["x"] == (2 if status in (429, 500) else 1)


def test_without_a_key(answers, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    answers.says["x"] = (401, {})
    assert "wants a key in OPENAI_API_KEY (401)" in refused(Endpoint("m", answers.url("x")), images[:1])
    with pytest.raises(CaptionError, match="wants a key: set OPENAI_API_KEY"):
        Endpoint("gpt-4o")


def test_never(answers, images: list[Image.Image]) -> None:
    answers.says["x"] = None
    captioner = Endpoint("m", answers.url("x"), timeout=0.1, retries=1)
    assert "gave no answer within 0.1 s, after 2 tries: see whether" in refused(captioner, images[:2])


def test_nobody_there(images: list[Image.Image]) -> None:
    with socket.socket() as nobody:  # bound, but does not listen
        nobody.bind(("127.0.0.1", 0))
        captioner = Endpoint("m", f"http://127.0.0.1:{nobody.getsockname()[1]}/v1", retries=0)
        assert "cannot be reached, after 1 tries: is the server running" in refused(captioner, images[:1])


def test_after_an_error_no_more_is_asked(answers, images: list[Image.Image]) -> None:
    answers.says["x"] = (401, {})
    refused(Endpoint("m", answers.url("x"), at_once=2), images * 10)
    assert answers.asked["x"] < 40


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"message": None}]}, "<html>", b"<html>", [1]])
def test_something_else_than_a_completion(answers, images: list[Image.Image], body: object) -> None:
    answers.says["x"] = (200, body)
    assert "OpenAI-compatible address" in refused(Endpoint("m", answers.url("x")), images[:1])


def test_a_refusal_and_an_empty_answer_are_no_captions(answers, images: list[Image.Image]) -> None:
    said = [{"content": None, "refusal": "I'm sorry, I can't help with that."}, {"content": None}, {"content": " "}]
    for message in said:
        answers.says["x"] = answers.completion(message)
        raw = Endpoint("m", answers.url("x"))(images[:1])[0]
        assert raw == (message.get("refusal") or "")
        with pytest.raises(CaptionError, match="take another"):
            usable(raw)
    answers.says["x"] = (400, {"error": {"message": "filtered", "code": "content_filter"}})
    assert Endpoint("m", answers.url("x"))(images[:1]) == [""]


def test_thinking_without_an_answer(answers, images: list[Image.Image]) -> None:
    answers.says["x"] = answers.completion({"content": ""}, "length")
    assert "thought through all of its 500 tokens" in refused(Endpoint("m", answers.url("x")), images[:1])
    answers.says["x"] = answers.completion({"content": "a dog on"}, "length")
    assert Endpoint("m", answers.url("x"))(images[:1]) == ["a dog on"]


def test_a_model_that_takes_no_temperature(answers, images: list[Image.Image]) -> None:
    def says(request: dict) -> tuple[int, object]:
        if "temperature" in request:
            return 400, {"error": {"message": "unsupported", "param": "temperature", "code": "unsupported_value"}}
        return answers.completion({"content": "a dog"})

    answers.says["x"] = says
    captioner = Endpoint("m", answers.url("x"))
    assert captioner(images) == ["a dog"] * len(images)
    before = answers.asked["x"]
    assert captioner(images[:2]) == ["a dog"] * 2 and answers.asked["x"] == before + 2  # it has learned


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8000", "no address"),
        ("http://", "no address"),
        ("http://host:port/v1", "no address"),
        (f"http://user:{KEY}@host/v1", "a key belongs into the environment"),
        (f"http://host/v1?key={KEY}", "a key belongs into the environment"),
    ],
)
def test_an_address_that_is_none(url: str, message: str) -> None:
    with pytest.raises(CaptionError, match=message) as error:
        Endpoint("m", url)
    assert KEY not in str(error.value)


def test_nothing_to_do() -> None:
    with pytest.raises(CaptionError, match="which model"):
        Endpoint.at("openai:")
    with pytest.raises(CaptionError, match="at_once=0"):
        Endpoint("m", at_once=0)


def test_without_the_package() -> None:
    code = "import sys; sys.modules['openai'] = None; import captioning; captioning.Endpoint('m')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "needs the package openai: pip install 'dnp[openai]'" in done.stderr.splitlines()[-1]
