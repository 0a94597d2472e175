"""The report: its numbers against the ones it was made of, its words, and its page in a real browser."""

import csv
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from eval.manifest import ManifestError
from eval.report import report
from eval.report.page import facts
from eval.report.results import results
from eval.statistics import gain, holm, mean


@pytest.fixture(scope="module")
def folder(run):
    report(run)
    return run


def scored(folder):
    values = {}
    for row in csv.DictReader(open(folder / "scores.csv")):
        values.setdefault((row["arm"], row["metric"]), {})[row["prompt"], row["seed"]] = float(row["value"])
    return values


def factors(pairs):
    return {"prompt": [prompt for prompt, _ in pairs], "seed": [seed for _, seed in pairs]}


def test_the_table_has_the_scores_means_and_differences(folder):
    values = scored(folder)
    rows = {(r["arm"], r["metric"]): r for r in csv.DictReader(open(folder / "report.csv")) if not r["category"]}
    assert len(rows) == len(values) == 6
    for (arm, metric), these in values.items():
        row, share = rows[arm, metric], mean(list(these.values()), factors(these), binary=True)
        assert [float(row[key]) for key in ("mean", "low", "high")] == pytest.approx(
            [share.mean, share.low, share.high]
        )
        assert int(row["pictures"]) == len(these)
        if arm == "plain":
            assert row["difference"] == ""
            continue
        those = values["plain", metric]
        a, b = [these[pair] for pair in these], [those[pair] for pair in these]
        g = gain(a, b, factors(these))
        found = [float(row[key]) for key in ("difference", "difference_low", "difference_high", "p")]
        assert found == pytest.approx([g.difference, g.low, g.high, g.p])
        assert float(row["relative_percent"]) == pytest.approx(100 * (np.mean(a) / np.mean(b) - 1))
        assert int(row["won"]) == sum(x > y for x, y in zip(a, b, strict=True))
    p = [float(rows[arm, "both right"]["p"]) for arm in ("better", "same")]
    assert [float(rows[arm, "both right"]["p_holm"]) for arm in ("better", "same")] == pytest.approx(holm(p))


def test_the_words_and_colours_follow_the_adjusted_p(folder):
    said = facts(results(folder))
    difference = scored(folder)
    change = np.mean(list(difference["better", "both right"].values())) - np.mean(
        list(difference["plain", "both right"].values())
    )
    assert said["answer"] == (
        f"In both right, compared with plain: better ({change:+.3f}) does better; 1 arm cannot be told from it."
    )
    assert [(arm, kind) for arm, _, kind in said["verdicts"]] == [("better", "good"), ("same", "")]
    assert said["verdicts"][1][1].startswith("no difference that 119 pairs can tell: ")
    text = (folder / "report.md").read_text()
    assert said["answer"] in text and "same: 1." in text  # the pair without a score in both arms
    (table,) = [table for table in said["tables"] if table.title == "Do the pictures show it?"]
    assert [name for _, name in table.head] == ["both right", "neglected ↓"]
    kinds = {line.name: [cell.kind for cell in line.cells] for line in table.lines}
    assert kinds == {"plain": ["", ""], "better": ["good", "good"], "same": ["", ""]}


def test_how_it_was_made(folder):
    said = facts(results(folder))
    lines = {line.name: [cell.text for cell in line.cells] for line in said["how"].lines}
    assert [name for _, name in said["how"].head] == ["evaluations a picture", "seconds a picture"]
    assert lines["better"] == ["16", "1.00"] and lines["plain"] == ["8", "0.50"]  # with its diffusion-negative
    assert said["how"].notes == ("The same for all: formula u, scale 7.5.",)
    assert "by clip cosine on 5 held-out prompts with 4 seeds each: plain 7.5" in said["scale_note"]


def test_the_curve_of_tried_scales_is_of_the_metric_that_chose(folder):
    page = (folder / "report.html").read_text()
    plot = next(svg for svg in re.findall(r"<svg.*?</svg>", page, re.S) if "Scales tried on held-out prompts" in svg)
    assert "clip cosine" in plot and "both right" not in plot


def test_it_is_the_same_again(folder):
    first = {name: (folder / name).read_bytes() for name in ("report.html", "report.md", "report.csv")}
    report(folder)
    assert first == {name: (folder / name).read_bytes() for name in first}


def test_what_is_lacking_is_said(folder, tmp_path):
    with pytest.raises(ManifestError, match="no manifest.jsonl"):
        report(tmp_path)
    with pytest.raises(ManifestError, match="'best' to compare with: give --baseline, one of plain, better, same"):
        report(folder, "best")
    shutil.copy(folder / "manifest.jsonl", tmp_path)
    with pytest.raises(ManifestError, match="run dnp score"):
        report(tmp_path)


def test_a_manifest_that_lost_lines(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    manifest = tmp_path / "run" / "manifest.jsonl"
    lines = manifest.read_text().splitlines()
    kept = [line for line in lines if not (json.loads(line)["arm"] == "better" and json.loads(line)["seed"] == 2)]
    manifest.write_text("\n".join(kept) + "\n")
    report(tmp_path / "run")
    text = (tmp_path / "run" / "report.md").read_text()
    assert "Scores of 20 pictures that the manifest does not name are left out" in text
    assert "better: 20, same: 1" in text
    assert facts(results(tmp_path / "run"))["verdicts"][0][1].startswith("better: +0.")


def test_a_picture_that_was_lost_is_said(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    for path in (tmp_path / "run").glob("*.png"):
        path.unlink()
    report(tmp_path / "run")
    assert "0.png is missing" in (tmp_path / "run" / "report.md").read_text()


def test_the_page_in_a_browser(folder, tmp_path):
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if not browser:
        assert os.environ.get("CI") != "true", "continuous integration must have Chromium"
        pytest.skip("there is no Chromium here")
    page = (folder / "report.html").read_text()
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)  # nothing is loaded from elsewhere
    probe = """<script>window.addEventListener('load', () => {
        const images = [...document.images], plots = [...document.querySelectorAll('svg[role=img]')];
        const wide = [...document.querySelectorAll('.scroll')].filter(s => s.scrollWidth > s.clientWidth);
        document.body.dataset.found = [images.length, images.filter(i => i.naturalWidth > 0).length, plots.length,
            plots.filter(p => p.getBoundingClientRect().width > 200).length,
            document.querySelectorAll('table.results tbody tr').length,
            document.documentElement.scrollWidth <= innerWidth, wide.length].join();
    });</script></body>"""
    (tmp_path / "page.html").write_text(page.replace("</body>", probe))
    for width in (1200, 480):
        command = [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
        ]
        command += [f"--window-size={width},900", "--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom"]
        done = subprocess.run(
            [*command, f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True, timeout=120
        )
        numbers = re.search(r'data-found="([^"]*)"', done.stdout)
        assert numbers, done.stderr[-500:]
        images, loaded, plots, drawn, rows, fits, wide = numbers[1].split(",")
        assert (
            int(images) == int(loaded) == 42
        )  # better wins 6 with three pictures each, same wins and loses 6 with two
        assert int(plots) == int(drawn) == 3  # the differences, the tried scales, what it costs
        assert int(rows) == 6  # three arms, over all and by category
        assert fits == "true" and (width < 1200 or wide == "0")
        assert "CONSOLE" not in done.stderr
