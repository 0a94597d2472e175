"""What any command says to what it cannot use, and what it takes to say it."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "diffusers", "transformers", "k_diffusion", "scipy"}


def one_line(dnp, *words):
    (line,) = dnp(*words, status=2).stderr.splitlines()
    assert line.startswith("dnp: ")
    return line


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["genrate"], "Did you mean 'generate'?"),
        (["--sede"], "No such option '--sede'"),
        (["generate", "a apple", "--captoner", "x"], "--captioner"),
        (["generate"], "Missing argument 'PROMPT'. (see dnp generate --help)"),
        (["generate", "a apple", "--empty", "nothing"], "'encoded', 'zeros'"),
        (["sweep", "--steps", "0"], "0 is not in the range 1<=x<=10000"),
        (["sweep", "--steps", "1000000000"], "not in the range"),
        (["gap", "--batch", "1000000"], "not in the range"),
        (["sweep", "--workers", "0"], "not in the range"),
        (["generate", "a apple", "--seed", "0-1000000000000"], "are 1,000,000,000,001 seeds: give 100,000 at most"),
        (["generate", "a apple", "--count", "1000000"], "not in the range"),
        (["generate", "a apple " * 10_000], "has 80,000 characters: the most are 10,000"),
        (["gap", "a apple " * 10_000], "has 80,000 characters"),
    ],
)
def test_one_line_names_the_value_and_the_remedy(dnp, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    assert says in one_line(dnp, *words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "a apple", "--captioner", ""],
        ["generate", "a apple", "--negative", " "],
        ["sweep", "--arms", ""],
        ["sweep", "--prompts", ""],
        ["sweep", "--choose", ""],
        ["ablate", "CFG(s)", "--negatives", ""],
        ["ablate", "CFG(s)", "--dns", ""],
        ["gap", "--model", ""],
        ["gap", "--out", ""],
        ["generate", "a apple", "--lora", "x", "--lora", ""],
        ["score", "out", "--metrics", ""],
        ["report", "out", "--baseline", ""],
    ],
)
def test_an_option_that_names_nothing_is_an_error(dnp, words):
    assert f"Invalid value for '{words[-2]}'" in (said := one_line(dnp, *words)) or words[-2] in said
    assert "it is empty: leave the option out, or give it a value" in said


def test_names_that_are_all_commas_name_nothing(dnp):
    assert "',,' names nothing" in one_line(dnp, "sweep", "--arms", ",,")


def test_without_a_command_it_teaches(dnp):
    assert dnp().stdout == dnp("--help").stdout
    assert "Exit status: 0, done; 1, something was left out" in dnp("-h").stdout


@pytest.mark.parametrize("command", ["generate", "sweep", "ablate", "gap"])
def test_what_makes_pictures_takes_the_same_options(dnp, command):
    text = dnp(command, "--help").stdout
    shared = "model size lora controlnet control-image control-scale empty prediction cpu-offload allow-pickle device "
    shared += "dtype captioner schedule sampler steps dns dns-steps scale strength seed batch out"
    for name in shared.split() + ["workers", "ray"] * (command != "generate"):
        assert f"--{name} " in text or f"--{name}," in text, name
    assert f"dnp {command} " in text.partition("Options:")[0]  # an example


def loaded(*words):
    """The heavy packages that a command imports."""
    code = (
        "import sys\nfrom dnp.cli.main import main\ntry:\n    main(sys.argv[1:])\nfinally:\n"
        f"    print(*sorted({HEAVY} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr.split()


def test_quick_commands_import_nothing_that_is_slow(run, tmp_path):
    for words in (["--help"], ["generate", "--help"], ["sweep", "--help"], ["ablate", "--help"], ["score", "--help"]):
        assert loaded(*words) == [], words
    assert loaded("show", run) == loaded("env") == loaded("models") == []


def test_lists_import_torch_at_most():
    assert {*loaded("samplers"), *loaded("formulas")} <= {"torch"}
