"""Text of others: what is shown, and where lines end."""

import pytest

from eval.text import lines, visible


def test_what_would_act_is_shown():
    assert visible("a\x1b[31mb\nc\td\x00\x9b") == "a\\x1b[31mb\\nc\\td\\x00\\x9b"
    assert visible("\u202etxt\u2066 \u2028 \ud800") == "\\u202etxt\\u2066 \\u2028 \\ud800"
    assert visible("a café, 猫 и 🐈, “quoted”") == "a café, 猫 и 🐈, “quoted”"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_end_at_newlines_alone(mark, end):
    parts = ["a\u2028b", "c\x85d\x0c", "", "é"]
    assert lines(mark + end.join(part.encode() for part in parts)) == parts
