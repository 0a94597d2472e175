from unicodedata import category

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPTokenizer

from captioning import MAX_TOKENS, MAX_WORDS, Caption, CaptionError, Fixed, Person, Universal, captions_of, usable


def count(tokenizer: CLIPTokenizer, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("raw", "used"),
    [
        ("a red circle", "a red circle"),
        ("  a red\n\tcircle \r\n", "a red circle"),
        ("a\u00a0red\u2003circle", "a red circle"),
        ("a \x00red\x1b\u200b circle\ud800", "a red circle"),
        ('"a red circle"', "a red circle"),
        ("“'a red circle'” ", "a red circle"),
        ('"Stop" says "go"', '"Stop" says "go"'),
        ("a sign that says 'go'", "a sign that says 'go'"),
        ("a red circle,", "a red circle"),
        ("a dog dog dog dog", "a dog"),
        ("a cat and a dog and a dog and a dog and", "a cat and a dog"),
        ("a cat, a dog, A dog, a dog.", "a cat, a dog"),
        ("New York, New York", "New York, New York"),
        ("a very very large dog", "a very very large dog"),
        ("une fenêtre à la française", "une fenêtre à la française"),
        ("the image shows a dog", "the image shows a dog"),
    ],
)
def test_cleans(raw: str, used: str) -> None:
    assert usable(raw) == Caption(raw, used)


@pytest.mark.parametrize("raw", ["", "  \n", '""', "...", "\u200b", "“”", " , ; "])
def test_nothing_usable_is_an_error_that_names_it(raw: str) -> None:
    with pytest.raises(CaptionError, match="no words") as error:
        usable(raw)
    assert repr(raw) in str(error.value)


@pytest.mark.parametrize(
    "raw",
    ["I'm sorry, but I can't assist with that.", "Sorry, no.", "I cannot describe people", '"I’m unable to help."'],
)
def test_a_refusal_is_no_caption(raw: str) -> None:
    with pytest.raises(CaptionError, match="did not describe the picture"):
        usable(raw)


@pytest.mark.parametrize("raw", ["a sorry dog", "sorry face", "an unable", "a sign: I cannot wait", "I can see a cat"])
def test_what_only_looks_like_a_refusal(raw: str) -> None:
    assert usable(raw).used == raw


def test_cuts_at_the_word_limit() -> None:
    words = [f"w{i}" for i in range(100)]
    assert usable(" ".join(words[:59])).used == " ".join(words[:59])
    assert usable(" ".join(words)).used == " ".join(words[:59])
    assert usable(" ".join(words), max_words=3).used == "w0 w1 w2"


def test_cuts_between_words_at_the_token_limit(clip_tokenizer: CLIPTokenizer) -> None:
    raw = "the red elephant " + " ".join(f"cat{i}" for i in range(40))
    used = usable(raw, clip_tokenizer).used
    following = raw[len(used) :].split()[0]

    assert raw.startswith(used + " ")  # whole words, and as many as there is room for
    assert count(clip_tokenizer, used) <= 75 < count(clip_tokenizer, f"{used} {following}")
    assert len(clip_tokenizer(used)["input_ids"]) <= clip_tokenizer.model_max_length == 77
    assert count(clip_tokenizer, usable(raw, clip_tokenizer, max_tokens=20).used) <= 20


def test_a_tokenizer_with_less_room_lowers_the_limit(clip_tokenizer: CLIPTokenizer) -> None:
    clip_tokenizer.model_max_length = 16
    try:
        assert usable("the red the red", clip_tokenizer).used == "the red the red"
        used = usable("the red " + " ".join("abcdefghijklmnop"), clip_tokenizer).used
    finally:
        clip_tokenizer.model_max_length = 77
    assert count(clip_tokenizer, used) == 16 - 2


def test_one_endless_word_is_an_error(clip_tokenizer: CLIPTokenizer) -> None:
    with pytest.raises(CaptionError, match="'xyxyxy.*longer than 75 tokens"):
        usable("xy" * 100, clip_tokenizer)


# Random text hardly ever loops or is quoted, so words and marks that do are thrown in.
PIECES = st.sampled_from(["the", "red", "cat", "New York", ",", ".", '"', "'", "“", "”", "\x00", "\ud800", "\n", "-"])
TEXTS = st.text() | st.lists(PIECES | st.text(max_size=4), max_size=120).flatmap(
    lambda pieces: st.sampled_from([" ".join(pieces), "".join(pieces), " ".join(pieces * 4)])
)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(raw=TEXTS, max_tokens=st.integers(1, MAX_TOKENS), max_words=st.integers(1, MAX_WORDS))
def test_what_is_used_is_usable(clip_tokenizer: CLIPTokenizer, raw: str, max_tokens: int, max_words: int) -> None:
    try:
        caption = usable(raw, clip_tokenizer, max_words, max_tokens)
    except CaptionError:
        return
    assert caption.raw == raw
    assert usable(caption.used, clip_tokenizer, max_words, max_tokens).used == caption.used
    assert 1 <= len(caption.used.split()) <= max_words
    assert 1 <= count(clip_tokenizer, caption.used) <= max_tokens
    assert caption.used == " ".join(caption.used.encode().decode().split())
    assert not {category(c) for c in caption.used} & {"Cc", "Cf", "Cs"}


class Says:
    def __init__(self, texts: object, verbatim: bool = False) -> None:
        self.name, self.texts, self.verbatim = "says", texts, verbatim

    def __call__(self, images: object) -> object:
        return self.texts


def test_what_a_person_wrote_is_used_as_it_is(clip_tokenizer: CLIPTokenizer) -> None:
    text, picture = '"a dog dog dog dog,  ' + " ".join(map(str, range(100))), Image.new("RGB", (2, 2))
    assert captions_of(Says([text], verbatim=True), [picture], clip_tokenizer) == [Caption(text, text)]  # type: ignore[arg-type]
    (cleaned,) = captions_of(Says([text]), [picture], clip_tokenizer)  # type: ignore[arg-type]
    assert cleaned == usable(text, clip_tokenizer) and len(cleaned.used) < len(text) / 2
    for captioner in (Fixed(text), Universal([text])):
        assert captions_of(captioner, [picture] * 2, clip_tokenizer) == [Caption(text, text)] * 2
    assert Person.verbatim


@pytest.mark.parametrize("texts, given", [("a dog", "one text"), (["a"], "1 texts"), (["a"] * 3, "3 texts")])
def test_one_text_for_each_image(texts: object, given: str) -> None:
    with pytest.raises(CaptionError, match=f"says gave {given} for 2 images: one each is needed"):
        captions_of(Says(texts), [Image.new("RGB", (2, 2))] * 2)  # type: ignore[arg-type]
