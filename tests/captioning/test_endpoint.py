"""Against `transformers serve` with a tiny model, and against what no real server says on demand."""

import gzip
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
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
    monkeypatch.delenv("DNP_KEY_OVER_HTTP", raising=False)
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
    with pytest.raises(CaptionError, match="needs a key: set OPENAI_API_KEY"):
        Endpoint("gpt-4o")


def test_never(answers, images: list[Image.Image]) -> None:
    answers.says["x"] = None
    captioner = Endpoint("m", answers.url("x"), timeout=0.1, retries=1)
    assert "gave no answer within 0.1 s, after 2 tries: is it overloaded" in refused(captioner, images[:2])


def test_nobody_there(images: list[Image.Image]) -> None:
    with socket.socket() as nobody:  # bound, but does not listen
        nobody.bind(("127.0.0.1", 0))
        captioner = Endpoint("m", f"http://127.0.0.1:{nobody.getsockname()[1]}/v1", retries=0)
        assert "cannot be reached, after 1 try: is the server running" in refused(captioner, images[:1])


def test_after_an_error_no_more_is_asked(answers, images: list[Image.Image]) -> None:
    answers.says["x"] = (401, {})
    refused(Endpoint("m", answers.url("x"), at_once=2), images * 10)
    assert answers.asked["x"] < 40


@pytest.mark.parametrize(
    "body",
    [{}, {"choices": []}, {"choices": [{"message": None}]}, "<html>", b"<html>", [1], b"\xff{}", b"[" * 10**5]
    + [{"choices": {"0": 1}}, {"choices": [{"message": ["a dog"]}]}, b'{"choices": 1' + b"0" * 5000 + b"}"],
)
def test_something_else_than_a_completion(answers, images: list[Image.Image], body: object) -> None:
    answers.says["x"] = (200, body)
    message = refused(Endpoint("m", answers.url("x"), retries=0), images[:1])
    assert "answered with something else than a chat completion, after 1 try: is that an OpenAI-comp" in message


def test_an_empty_body(answers, images: list[Image.Image]) -> None:
    answers.says["x"] = (200, b" \n")
    assert "answered with nothing at all" in refused(Endpoint("m", answers.url("x"), retries=0), images[:1])


@pytest.mark.parametrize("bad", [(200, b"<html>"), (200, b""), (503, {}), (408, {})])
def test_one_bad_answer_is_asked_for_again(answers, images: list[Image.Image], bad: tuple[int, object]) -> None:
    said = iter([bad])
    answers.says["x"] = lambda request: next(said, answers.completion({"content": "a dog"}))
    assert Endpoint("m", answers.url("x"), at_once=1)(images[:1]) == ["a dog"]
    assert answers.asked["x"] == 2


@pytest.mark.parametrize(
    "content, why",
    [
        ([{"type": "text", "text": "a dog"}], "a caption that is no text (list)"),
        ({"a": 1}, "a caption that is no text (dict)"),
        (True, "a caption that is no text (bool)"),
        ("a dog " * 4000, "a caption of 24000 characters"),
    ],
)
def test_a_bad_caption_leaves_the_others(answers, images: list[Image.Image], content: object, why: str) -> None:
    said = iter([answers.completion({"content": content})])
    answers.says["x"] = lambda request: next(said, answers.completion({"content": "a dog"}))
    captioner = Endpoint("m", answers.url("x"), at_once=1)
    captions = captioner(images[:3])
    assert captions == ["", "a dog", "a dog"]
    with pytest.raises(CaptionError) as error:
        usable(captions[0])
    assert str(error.value).startswith(f"{captioner.name} gave {why}") and "\n" not in str(error.value)


def test_half_a_character_and_the_key_in_a_caption(answers, images: list[Image.Image]) -> None:
    body = {"choices": [{"message": {"content": f"a \ud800 dog \ud83d\ude00 named {KEY}"}}]}
    answers.says["x"] = (200, body)  # as json.dumps escapes it
    assert Endpoint("m", answers.url("x"))(images[:1]) == ["a \ufffd dog \U0001f600 named …"]


def test_a_refusal_and_an_empty_answer_are_no_captions(answers, images: list[Image.Image]) -> None:
    said = [{"content": None, "refusal": "I'm sorry, I can't help with that."}, {"content": None}, {"content": " "}]
    for message in said:
        answers.says["x"] = answers.completion(message)
        raw = Endpoint("m", answers.url("x"))(images[:1])[0]
        assert raw == (message.get("refusal") or "")
        with pytest.raises(CaptionError, match="take another"):
            usable(raw)
    answers.says["x"] = (400, {"error": {"message": "filtered", "code": "content_filter"}})
    (raw,) = Endpoint("m", answers.url("x"))(images[:1])
    with pytest.raises(CaptionError, match="was stopped by its content filter"):
        usable(raw)


def test_thinking_without_an_answer(answers, images: list[Image.Image]) -> None:
    answers.says["x"] = answers.completion({"content": ""}, "length")
    with pytest.raises(CaptionError, match="thought through all of its 500 tokens"):
        usable(Endpoint("m", answers.url("x"))(images[:1])[0])
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
        ("127.0.0.1:8000", "'127.0.0.1:8000' is not the address of an endpoint"),
        ("http://", "is not the address"),
        ("http://host:port/v1", "is not the address"),
        ("https://ho st/v1", "is not the address"),
        ("https://höst/v1", "is not the address"),
        ("ftp://host/v1", "is not the address"),
        (f"user:{KEY}@host/v1", "leave it out"),
        (f"https://host/{KEY}/v1", "leave it out"),
        ("user:some-other-key@host/v1?key=a-third", "'host/v1' is not the address"),
        (f"http://user:{KEY}@host/v1", "a key belongs into the environment"),
        (f"http://host/v1?key={KEY}", "a key belongs into the environment"),
    ],
)
def test_an_address_that_is_none(url: str, message: str) -> None:
    with pytest.raises(CaptionError, match=message) as error:
        Endpoint("m", url)
    assert KEY not in str(error.value)


@pytest.mark.parametrize("name", ["m@localhost:1/v1", "m@localhost", "m@10.0.0.3/v1", "org/m@main@host:8000", "m@a.b"])
def test_an_address_without_its_scheme_does_not_go_to_openai(name: str) -> None:
    with pytest.raises(CaptionError, match="is an address without http:// or https://: write openai:MODEL@http://HOST"):
        Endpoint.at(f"openai:{name}")


@pytest.mark.parametrize("url", ["http://10.0.0.3:8000/v1", "HTTP://example.com/v1", "http://localhost.example.com/v1"])
def test_a_key_does_not_travel_unencrypted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DNP_KEY_OVER_HTTP", raising=False)
    with pytest.raises(CaptionError, match="unencrypted: use an address with https://, unset the key") as error:
        Endpoint("m", url)
    assert KEY not in str(error.value)
    assert Endpoint("m", url, key_over_http=True).url == url
    monkeypatch.setenv("DNP_KEY_OVER_HTTP", "1")
    assert Endpoint("m", url).url == url
    monkeypatch.delenv("DNP_KEY_OVER_HTTP")
    monkeypatch.delenv("OPENAI_API_KEY")
    assert Endpoint("m", url).url == url  # without a key nothing can be read on the way


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "127.8.0.1"])
def test_on_this_machine_nothing_travels(host: str) -> None:
    assert Endpoint("m", f"http://{host}:8000/v1").url == f"http://{host}:8000/v1"


@pytest.mark.parametrize("key", ["a key", "sk-\nHost: elsewhere", "schlüssel"])
def test_what_is_no_key_is_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(CaptionError, match="OPENAI_API_KEY holds characters that no key has") as error:
        Endpoint("m")
    assert key not in str(error.value)
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")  # as from a file
    assert Endpoint("m")._key == KEY


# --- a hostile server


def request(connection: socket.socket) -> bytes:
    """The whole of it: closing a connection with something unread takes the answer back."""
    data = b""
    while True:
        data += connection.recv(2**16)
        head, end, body = data.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].split()[0]):
            return data


@pytest.fixture
def hostile() -> Iterator[Callable[[Callable[[socket.socket], None]], str]]:
    """A function that speaks → the address of a server that reads a request and lets it speak."""
    servers, threads, heard = [], [], []

    def start(speak: Callable[[socket.socket], None]) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # closed: the test is over
                    return
                with connection:
                    connection.settimeout(5)
                    try:
                        heard.append(request(connection))
                        speak(connection)
                    except OSError:  # whoever asked is gone
                        pass

        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/v1"

    start.heard = heard  # type: ignore[attr-defined]
    yield start
    for server in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


def drip(connection: socket.socket, start: bytes, piece: bytes) -> None:
    connection.sendall(start)
    for _ in range(100):
        connection.sendall(piece)
        time.sleep(0.02)


@pytest.mark.parametrize(
    "start, piece",
    [(HEAD + b"\r\n", b" "), (HEAD, b"X: y\r\n"), (b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (b"HTTP/1.1 2", b"0")],
    ids=["body", "headers", "interim answers", "status"],
)
def test_a_slow_drip(hostile, images: list[Image.Image], start: bytes, piece: bytes) -> None:
    captioner = Endpoint("m", hostile(lambda connection: drip(connection, start, piece)), timeout=0.3, retries=0)
    begin = time.monotonic()
    assert "gave no answer within 0.3 s, after 1 try" in refused(captioner, images[:1])
    assert time.monotonic() - begin < 1.5


def flood(connection: socket.socket, head: bytes, piece: bytes) -> None:
    connection.sendall(head + b"\r\n")
    while True:
        connection.sendall(piece)


@pytest.mark.parametrize("status", [b"200 OK", b"500 No", b"400 Bad"])
def test_an_answer_without_end(hostile, images: list[Image.Image], status: bytes) -> None:
    url = hostile(lambda connection: flood(connection, b"HTTP/1.1 " + status + b"\r\n", b"x" * 2**16))
    assert "gave an answer that is longer than 1048576 bytes" in refused(Endpoint("m", url, retries=0), images[:1])


def test_zipped(hostile, images: list[Image.Image]) -> None:
    def answer(data: bytes) -> Callable[[socket.socket], None]:
        whole = HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(data, 1)
        return lambda connection: connection.sendall(whole)

    good = json.dumps({"choices": [{"message": {"content": "a dog"}}]}).encode()
    assert Endpoint("m", hostile(answer(good)), retries=0)(images[:1]) == ["a dog"]
    bomb = hostile(answer(bytes(10 * 2**20)))  # 10 MiB of zeros in 45 KB
    assert "gave an answer that is longer than 1048576 bytes" in refused(Endpoint("m", bomb, retries=0), images[:1])
    for packed, why in ((b"gzip", "is damaged"), (b"br", "is packed as 'br', which was not asked for")):
        url = hostile(lambda c, packed=packed: c.sendall(HEAD + b"Content-Encoding: " + packed + b"\r\n\r\nxxxx"))
        assert f"gave an answer that {why}" in refused(Endpoint("m", url, retries=0), images[:1])


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH\r\n", HEAD + b"X" * 70000, HEAD + b"A: b\r\n" * 200])
def test_what_is_no_http(hostile, images: list[Image.Image], said: bytes) -> None:
    url = hostile(lambda connection: connection.sendall(said))
    assert "cannot be reached, after 1 try" in refused(Endpoint("m", url, retries=0), images[:1])


def test_a_redirect_does_not_get_the_key(hostile, images: list[Image.Image]) -> None:
    elsewhere = hostile(lambda connection: connection.sendall(HEAD + b"\r\n{}"))
    moved = f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n".encode()
    message = refused(Endpoint("m", hostile(lambda connection: connection.sendall(moved))), images[:1])
    assert "sends on to another address (307), which is not followed" in message
    assert len(hostile.heard) == 1 and KEY.encode() in hostile.heard[0]


def test_nothing_to_do() -> None:
    with pytest.raises(CaptionError, match="which model"):
        Endpoint.at("openai:")
    with pytest.raises(CaptionError, match="at_once=0"):
        Endpoint("m", at_once=0)
