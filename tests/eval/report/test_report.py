"""The report: its numbers against the ones it was made of, and its page in a real browser."""

import csv
import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from eval.manifest import ManifestError
from eval.report import report

ARMS = {"plain": 0.0, "better": 0.3, "same": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A scored run of 20 prompts and 3 seeds: one arm that is better, one that is plain's equal but for luck."""
    path = tmp_path_factory.mktemp("run")
    rng = np.random.default_rng(0)
    lines, rows = [], []
    for place in range(20):
        category, luck = ("one", "two")[place % 2], rng.random(3)
        for seed in range(3):
            for arm, gain in ({"dns": 0.0} | ARMS).items():
                name = f"{arm}-{place}-{seed}.png"
                Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path / name)
                record = {"path": name, "prompt": f"a <b> {place}", "seed": seed, "arm": arm, "category": category}
                record |= {"evaluations": 8, "seconds": 0.5, "scale": 7.5, "guidance": "u", "model": "tiny"}
                record |= {"caption": "a & b" if arm in ("dns", "better") else "", "negative_prompt": "a & b"}
                lines.append(json.dumps(record))
                if arm == "dns" or (arm == "same" and place == 0 and seed == 0):
                    continue
                right = float(luck[seed] < 0.4 + gain) if arm != "same" else float(rng.random() < 0.4)
                rows.append([name, arm, record["prompt"], seed, category, "both right", right])
                rows.append([name, arm, record["prompt"], seed, category, "neglected", 1 - right])
    (path / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    with open(path / "scores.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "arm", "prompt", "seed", "category", "metric", "value"], *rows])
    about = {"both right": {"name": "judge", "higher_is_better": True, "unit": "share"}}
    about["neglected"] = {"name": "judge", "higher_is_better": False, "unit": "share"}
    (path / "metrics.json").write_text(json.dumps(about))
    tried = [{"scale": s, "value": 0.4, "low": 0.3, "high": 0.5} for s in (3.0, 7.5)]
    scales = {"metric": "both right", "prompts": 5, "seeds": 2, "arms": {"plain": {"chosen": 7.5, "tried": tried}}}
    (path / "scales.json").write_text(json.dumps(scales))
    settings = {"arms": [{"name": "better", "negative": "auto", "dns": "DNS(7.5)", "dns_sampling": {"steps": 4}}]}
    (path / "run.json").write_text(json.dumps(settings))
    report(path)
    return path


def test_the_table_has_the_scores_means_and_differences(folder):
    values = {}
    for row in csv.DictReader(open(folder / "scores.csv")):
        values.setdefault((row["arm"], row["metric"]), {})[row["prompt"], row["seed"]] = float(row["value"])
    rows = {(r["arm"], r["metric"]): r for r in csv.DictReader(open(folder / "report.csv")) if not r["category"]}
    for key, found in values.items():
        assert float(rows[key]["mean"]) == pytest.approx(np.mean(list(found.values())))
        plain = values["plain", key[1]]
        if key[0] != "plain":
            difference = np.mean([found[pair] - plain[pair] for pair in found])
            assert float(rows[key]["difference"]) == pytest.approx(difference)
            assert float(rows[key]["difference_low"]) <= difference <= float(rows[key]["difference_high"])


def test_the_words_follow_the_intervals(folder):
    text = (folder / "report.md").read_text()
    assert re.search(r"\*\*better\*\*: better: \+0\.\d+", text)
    assert re.search(r"\*\*same\*\*: no difference that 59 pairs can tell", text)
    assert "same: 1." in text  # the pair without a score in both arms
    assert "plain 7.5" in text and "held-out" in text
    assert "| better | u | 7.5 |" in text and "| 16 | 1.00 |" in text  # with its diffusion-negative


def test_the_paper_stands_beside_its_own_setting(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    for name in ("scores.csv", "manifest.jsonl"):
        path = tmp_path / "run" / name
        text = path.read_text().replace("both right", "clip cosine min object")
        path.write_text(text.replace(",one,", ",animal-animal,").replace(",two,", ",object-object,"))
    report(tmp_path / "run")
    assert "0.258 (+6.61%)" in (tmp_path / "run" / "report.md").read_text()
    assert "0.258" not in (folder / "report.md").read_text()


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
        document.body.dataset.found = [images.length, images.filter(i => i.naturalWidth > 0).length, plots.length,
            plots.filter(p => p.getBoundingClientRect().width > 200).length,
            document.querySelectorAll('table.results tbody tr').length,
            document.documentElement.scrollWidth <= innerWidth].join();
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
        images, loaded, plots, drawn, rows, fits = numbers[1].split(",")
        assert int(images) == int(loaded) > 10
        assert int(plots) == int(drawn) == 4
        assert int(rows) == 9  # three arms, over all and in two categories
        assert fits == "true"
        assert "CONSOLE" not in done.stderr
