"""Names, series and costs of arms by what `run.json` says of them."""

from eval.report.arms import costs, labels, series
from eval.report.page import facts
from eval.report.results import results


def run_of(tmp_path, write_run, arms, records=None):
    names = [about["name"] for about in arms]
    values = {
        (n, f"p{p}", s, ""): {"m": 1.0 * s + p + names.index(n)} for n in names for p in range(4) for s in range(4)
    }
    return results(write_run(tmp_path, values, arms=arms, records=records))


def test_numbered_arms_are_called_by_their_formula_at_its_scale(tmp_path, arm, write_run):
    found = run_of(
        tmp_path,
        write_run,
        [
            arm("plain", "CFG(s)"),
            arm("01@5", "NegPrompt(s, strength=w)", "auto", scale=5.0, strength=1.5, dns_arm="dns"),
            arm("02@10", "NegPrompt(s, strength=w)", "universal", scale=10.0),
            arm("03@5", "u + s*(p - u)", scale=5.0),
        ],
    )
    assert labels(found) == {
        "plain": "plain",
        "01@5": "NegPrompt(5, strength=1.5), auto",
        "02@10": "NegPrompt(10, strength=1), universal",
        "03@5": "u + 5*(p - u)",
    }
    text = str(facts(found))
    assert "NegPrompt(10, strength=1), universal" in text and "02@10" not in text.replace("'02@10'", "")


def test_arms_that_differ_in_one_number_are_a_series(tmp_path, arm, write_run):
    found = run_of(
        tmp_path,
        write_run,
        [
            arm("plain", "CFG(s)", scale=7.5),
            arm("a", "CFG(s)", scale=5.0),
            arm("b", "StepScale(0, w, 3)*(n - u)", "universal"),
            arm("c", "StepScale(0, w, 0.5)*(n - u)", "universal"),
        ],
    )
    assert series(found) == {
        "scale s": {"CFG(s)": [(5.0, "a"), (7.5, "plain")]},
        "x in the formula": {"StepScale(0, w, x)*(n - u)": [(0.5, "c"), (3.0, "b")]},
    }


def test_a_diffusion_negative_counts_where_its_caption_is_used(tmp_path, arm, write_run):
    records = {
        ("early", f"p{p}", s): {"source": "dns", "evaluations": 3, "seconds": 0.25} for p in range(4) for s in range(4)
    }
    arms = [arm("plain"), arm("dnp", negative="auto", dns_arm="early"), arm("early")]
    found = run_of(tmp_path, write_run, arms, records)
    assert costs(found) == {
        "plain": {"evaluations": 8, "seconds": 0.5},
        "dnp": {"evaluations": 11, "seconds": 0.75},
        "early": {"evaluations": 3, "seconds": 0.25},
    }
