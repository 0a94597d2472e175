"""Manifests of others: read, or refused in one line that names the place."""

import json

import pytest

from eval.manifest import ManifestError, of_prompt, read_manifest

GOOD = {"path": "a.png", "prompt": "a cat"}


def manifest(folder, *lines):
    (folder / "manifest.jsonl").write_bytes(
        b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines)
    )
    return read_manifest(folder)


def test_lines_split_at_newlines_alone(tmp_path):
    prompt = "a\u2028b\x85c"
    raw = json.dumps(GOOD | {"prompt": prompt}, ensure_ascii=False).encode()
    for data in (raw + b"\n" + raw, b"\xef\xbb\xbf" + raw + b"\r\n" + raw + b"\r\n", raw + b"\n\n" + raw + b"\n"):
        (tmp_path / "manifest.jsonl").write_bytes(data)
        assert [record["prompt"] for record in read_manifest(tmp_path)] == [prompt, prompt]


def test_what_a_line_does_not_say(tmp_path):
    assert manifest(tmp_path, GOOD) == [GOOD | {"arm": "images", "seed": 0, "category": ""}]
    assert read_manifest(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "line 2 is no JSON object"),
        (b"[1]", "line 2 is no JSON object"),
        (b"[" * 100_000, "line 2 is no JSON object"),
        ({"path": "x"}, "line 2 has no 'prompt'"),
        ({"path": 3, "prompt": "x"}, "line 2 has no 'path'"),
        (GOOD | {"arm": ["a"]}, r"line 2: 'arm' cannot be \"\['a'\]\""),
        (GOOD | {"seed": {}}, "line 2: 'seed' cannot be '{}'"),
        (GOOD | {"entities": "a cat"}, "line 2: 'entities' cannot be 'a cat'"),
        (GOOD | {"evaluations": "8"}, "line 2: 'evaluations' cannot be '8'"),
        (b'{"path": "a", "prompt": "a", "seconds": NaN}', "line 2: 'seconds' cannot be 'nan'"),
        (b'{"path": "a", "prompt": "a\\ud800"}', "line 2 holds half a character"),
        (b'{"path": "a", "prompt": "\xff"}', "is no text in UTF-8"),
    ],
)
def test_lines_that_cannot_be_used_are_named(tmp_path, line, says):
    with pytest.raises(ManifestError, match=says) as error:
        manifest(tmp_path, GOOD, line)
    assert "\n" not in str(error.value)


def test_errors_show_no_control_characters(tmp_path):
    with pytest.raises(ManifestError, match=r"\\x1b\[31m"):
        manifest(tmp_path, GOOD | {"source": ["\x1b[31m"]} | {"arm": 3, "category": "\x1b[31m"} | {"arm": ["\x1b[31m"]})
    assert "\x1b" not in str(ManifestError("\x1b[31m"))


def test_a_diffusion_negative_is_told_by_its_source():
    assert not of_prompt(GOOD | {"arm": "x", "source": "dns"})
    assert of_prompt(GOOD | {"arm": "dns-late", "source": "auto"}) and of_prompt(
        GOOD | {"arm": "dns", "source": "none"}
    )
    assert of_prompt(GOOD | {"arm": "dns2"}) and not of_prompt(GOOD | {"arm": "dns"})  # without a source: by the name
