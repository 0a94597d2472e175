"""Tables as Markdown, without empty and repeated columns."""

from eval.report.tables import Cell, Line, Table, markdown


def table(columns, head, **facts):
    lines = tuple(Line(f"row {i}", tuple(map(Cell, cells))) for i, cells in enumerate(zip(*columns, strict=True)))
    return Table("T", "arm", tuple(("", name) for name in head), lines, **facts)


def test_columns_that_say_nothing_new_go():
    found = table([["1", "2"], ["–", "–"], ["1", "2"], ["2", "1"]], ["a", "b", "c", "d"]).lean()
    assert [name for _, name in found.head] == ["a", "d"] and found.notes == ("c is the same as a in every row.",)
    assert [[cell.text for cell in line.cells] for line in found.lines] == [["1", "2"], ["2", "1"]]


def test_wide_tables_are_cut():
    parts = table([[str(i)] for i in range(8)], [f"c{i}" for i in range(8)], notes=("n",)).narrow()
    assert [part.title for part in parts] == ["T", "T (continued)"]
    assert [[cell.text for cell in part.lines[0].cells] for part in parts] == [list("01234"), list("567")]
    assert [part.notes for part in parts] == [(), ("n",)]


def test_markdown_by_hand():
    head = (("CLIP", "Min"), ("CLIP", "Full"), ("", "IS"))
    found = Table("T", "arm", head, (Line("a|b", (Cell("1", "[0, 2]"), Cell("2"), Cell())),), ("a note",))
    assert found.markdown() == (
        "## T\n\n| arm | CLIP: Min | CLIP: Full | IS |\n| --- | --- | --- | --- |\n"
        "| a\\|b | 1 [0, 2] | 2 | – |\n\na note\n"
    )
    assert found.groups == [("CLIP", 2), ("", 1)]


def test_markdown_shows_text_as_it_is():
    assert markdown("s*(p - u) <script> [a](javascript:x) `x` p < .001 & \x1b[0m") == (
        r"s\*(p - u) \<script> [a]\(javascript:x) \`x\` p < .001 &amp; \\x1b[0m"
    )
