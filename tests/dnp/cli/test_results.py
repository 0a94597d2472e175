"""`dnp show`, `dnp score` and `dnp report`: what is said of pictures that are there."""

import json

from PIL import Image, PngImagePlugin

PROMPT = "a red circle and a blue square"


def test_show(dnp, lines, run, tmp_path):
    shown = dnp("show", run).stdout
    assert shown.count(repr(PROMPT)) == 12 and "00003-dns.png" in shown
    one = dnp("show", run / "00001-dnp.png").stdout.splitlines()
    assert one[0] == f"00001-dnp.png: {PROMPT!r}, seed 1 (dnp)"
    assert [line.split()[0] for line in one[1:]] == ["guidance", "negative", "caption", "sampler", "model"]
    record = json.loads(dnp("show", "--json", run / "00001-dnp.png").stdout)
    assert record.items() <= next(r for r in lines(run) if r["path"] == "00001-dnp.png").items()
    assert len(dnp("show", "--json", run).stdout.splitlines()) == 12

    Image.new("RGB", (4, 4)).save(tmp_path / "bare.png")
    (tmp_path / "text.png").write_text("no picture")
    for path, message in (
        (tmp_path, "there is no manifest.jsonl"),
        (tmp_path / "bare.png", "carries no record"),
        (tmp_path / "text.png", "is no readable picture"),
        (tmp_path / "nothing.png", "is no readable picture"),
    ):
        (line,) = dnp("show", path, status=2).stderr.splitlines()
        assert message in line and str(path) in line


def test_a_manifest_that_was_edited(dnp, run, tmp_path):
    (tmp_path / "manifest.jsonl").write_text((run / "manifest.jsonl").read_text(encoding="utf-8") + "{\n", "utf-8")
    (line,) = dnp("show", tmp_path, status=2).stderr.splitlines()
    assert "manifest.jsonl, line 13 is no JSON" in line


def test_score_and_report(dnp, swept):
    run, _ = swept
    assert f"scores in {run / 'scores.csv'}: dnp report {run}" in dnp("score", run).stderr
    assert (run / "scores.csv").read_text().count("both right") == 12
    dnp("report", run)
    page = (run / "report.html").read_text()
    assert page.count("<svg") == 4 and "both right" in page  # two metrics, the scales tried, what it costs
    assert "held-out" in (run / "report.md").read_text()
    assert dnp("report", run, "--paper").stderr == f"{run / 'paper.html'}\n"
    assert (run / "paper.md").read_text().startswith(f"## In the layout of Table 2a: {run.name}\n")


def test_something_left_out_is_status_1(dnp, swept):
    run, _ = swept
    picture = next(run.glob("images/plain/*.png"))
    picture.rename(picture.with_suffix(".aside"))
    (run / "scored.json").unlink(missing_ok=True)
    try:
        said = dnp("score", run, status=1).stderr
    finally:
        picture.with_suffix(".aside").rename(picture)
    assert f"{picture.name} is missing" in said and "1 value left out" in said
    dnp("score", run)


def test_unknown_metrics_and_checkpoints_are_one_line(dnp, swept):
    for options, says in (
        (("--metrics", "fid"), "'fid' is none of judge, clip-min-object"),
        (("--clip", "none"), "ARCHITECTURE/WEIGHTS"),
        (("--metrics", "inception"), "--classifier FILE"),
    ):
        (line,) = dnp("score", swept[0], *options, status=2).stderr.splitlines()
        assert says in line


def test_what_a_terminal_would_act_on_is_shown_instead(dnp, run, tmp_path):
    with Image.open(run / "00001-dnp.png") as image:
        record = json.loads(image.info["dnp"]) | {"negative_prompt": "a \x1b[2J star"}
        info = PngImagePlugin.PngInfo()
        info.add_itxt("dnp", json.dumps(record))
        image.save(tmp_path / "hostile.png", pnginfo=info)
    assert r"negative  a \x1b[2J star" in dnp("show", tmp_path / "hostile.png").stdout
    assert r"'\x1b[2J'" in dnp("sweep", "--arms", "\x1b[2J", status=2).stderr
