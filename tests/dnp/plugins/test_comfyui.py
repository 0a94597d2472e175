"""The nodes over a stand-in for ComfyUI: numbers, hooks, what they need, and what they leave alone."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from guidance import parse

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "dnp" / "plugins" / "comfyui"
B = 2


@pytest.fixture(scope="module")
def stub():
    spec = importlib.util.spec_from_file_location("comfy_stub", Path(__file__).parent / "comfy_stub.py")
    stub = sys.modules["comfy_stub"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stub)
    before = set(sys.modules)
    stub.install()
    stub.nodes = stub.load(FOLDER)
    yield stub
    for name in set(sys.modules) - before:
        if name.startswith("comfy") or str(FOLDER).replace(".", "_x_") in name:
            del sys.modules[name]


@pytest.fixture
def texts():
    torch.manual_seed(0)
    return {name: [[torch.randn(1, 7, 8), {}]] for name in ("prompt", "negative", "empty")}


def denoise(x, t, context):
    """Some denoiser in ComfyUI's convention; of a flow model or another, it only has to be a function."""
    return 0.6 * x + context.mean((1, 2)).view(-1, 1, 1, 1) * torch.sin(3 * x) / (1 + t.view(-1, 1, 1, 1))


def built(stub, texts, formula, kind=None, **options):
    model = stub.Model((kind or stub.EPS)(), denoise)
    node = stub.nodes.NODE_CLASS_MAPPINGS["DNPFormulaGuider"]()
    (guider,) = node.make(stub.Patcher(model, **options), formula=formula, **texts)
    return guider, model


def once(guider, x, t):
    """One evaluation, as in a sampler's step."""
    found = []

    def sampler(model, start, sigmas, extra_args):
        found.append(model(x, t, **extra_args))
        return start

    guider.sample(x, torch.zeros_like(x), sampler, torch.stack([t[0], t[0] / 2]))
    return found[0]


FORMULAS = [
    "CFG(5)",
    "u + 5*(p - u) - 2*(n - u)",
    "NegPrompt(5, evaluations=2)",
    "DNS(4)",
    "PerpNeg(5, 1)",
    "APG(5, eta=0)",
    "CFGZeroStar(4)",
    "Rescale(CFG(5), 0.7)",
    "Interval(CFG(5), 0.5, 1)",
    "ANSWER(5, steps=2)",
]


@pytest.mark.parametrize("kind", ["EPS", "CONST"])
@pytest.mark.parametrize("formula", FORMULAS)
def test_it_equals_the_library(stub, texts, formula, kind):
    torch.manual_seed(1)
    x, t, flow = torch.randn(B, 4, 8, 8), torch.tensor([0.7, 0.6]), kind == "CONST"
    guider, model = built(stub, texts, formula, getattr(stub, kind))
    found = once(guider, x, t)

    def ours(x, sigma, context):
        level = sigma.view(-1, 1, 1, 1)
        return denoise(x / (1 + level), sigma / (1 + sigma), context) if flow else denoise(x, sigma, context)

    guided = parse(formula).wrap(ours)
    state = (x / (1 - t.view(-1, 1, 1, 1)), t / (1 - t)) if flow else (x, t)
    want = guided(*state, **{name: {"context": texts[name][0][0]} for name in texts})
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    assert (model.forwards, model.rows) == (guided.forwards, B * guided.evaluations)  # one forward for all


def test_a_whole_walk_equals_the_recipe_s_denoiser_and_sampler(stub, texts):
    import samplers

    sigmas = torch.tensor([14.6, 5.0, 1.5, 0.4, 0.1, 0.0])
    guider, _ = built(stub, texts, "u + 5*(p - u) - 2*(n - u)")
    noise = samplers.noise((4, 8, 8), [1, 2])
    found = guider.sample(noise, torch.zeros_like(noise), stub.euler, sigmas)
    conditions = {name: {"context": text[0][0]} for name, text in texts.items()}
    guided = parse("u + 5*(p - u) - 2*(n - u)").wrap(lambda x, sigma, context: denoise(x, sigma, context))
    want = samplers.sample(guided, noise, sigmas, sampler="euler", extra_args=conditions)
    assert (found - want).norm() < 1e-5 * want.norm()


POST = {  # as `cfg_function` passes them
    "denoised",
    "cond",
    "uncond",
    "cond_scale",
    "model",
    "uncond_denoised",
    "cond_denoised",
    "sigma",
    "model_options",
    "input",
}
PRE = {"conds", "conds_out", "cond_scale", "timestep", "input", "sigma", "model", "model_options"}


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("formula", ["u + 1*(p - u)", "p", "u + 4*(p - u)", "u + 4*(p - u) - 2*(n - u)"])
def test_hooks_before_and_after_cfg_act_once_and_find_what_the_real_sampler_gives_them(stub, texts, formula, full):
    seen = {"pre": [], "post": []}

    def double(args):
        seen["pre"].append(args)
        return [2 * out for out in args["conds_out"]]

    def add(args):
        seen["post"].append(args)
        return args["denoised"] + 0.1

    torch.manual_seed(2)
    x, t = torch.randn(B, 4, 8, 8), torch.tensor([3.0, 2.0])
    options = {"disable_cfg1_optimization": True} if full else {}
    plain, _ = built(stub, texts, formula, **options)
    hooked, model = built(
        stub, texts, formula, sampler_pre_cfg_function=[double], sampler_post_cfg_function=[add], **options
    )
    found = once(hooked, x, t)
    # all that is a weighted sum doubles with its parts
    torch.testing.assert_close(found, 2 * once(plain, x, t) + 0.1, rtol=1e-5, atol=1e-5)
    assert len(seen["pre"]) == len(seen["post"]) == 1
    (pre,), (post,) = seen["pre"], seen["post"]
    assert pre.keys() == PRE and post.keys() == POST
    scale = 4.0 if "4" in formula else 1.0
    assert pre["cond_scale"] == post["cond_scale"] == scale
    assert pre["sigma"] is t and post["sigma"] is t and pre["input"] is x and post["input"] is x
    assert all(isinstance(out, torch.Tensor) for out in pre["conds_out"]) and len(pre["conds_out"]) >= 2
    second = "empty" if formula == "u + 4*(p - u)" else "negative"  # where it names neither, as in the real sampler
    clean = [denoise(x, t, texts[name][0][0].expand(B, -1, -1)) for name in ("prompt", second)]
    torch.testing.assert_close(post["cond_denoised"], 2 * clean[0], rtol=1e-5, atol=1e-5)
    evaluated = full or scale == 4
    torch.testing.assert_close(
        post["uncond_denoised"], 2 * clean[1] if evaluated else torch.zeros_like(x), rtol=1e-5, atol=1e-5
    )
    assert model.forwards == 1 and model.rows == B * (3 if "n" in formula else 2 if evaluated else 1)
    # and the same keys as the sampler that is not ours
    theirs = stub.CFGGuider(hooked.model_patcher)
    theirs.inner_set_conds({"positive": texts["prompt"], "negative": texts["negative"]})
    once(theirs, x, t)
    assert seen["pre"][1].keys() == pre.keys() and seen["post"][1].keys() == post.keys()


def test_a_rule_that_asks_for_nothing_still_gives_hooks_the_prompt_s_prediction(stub, texts):
    seen = []
    guider, _ = built(
        stub, texts, "CFGZeroStar(4, zero=1)", sampler_post_cfg_function=[lambda a: seen.append(a) or a["denoised"]]
    )
    x, t = torch.randn(B, 4, 8, 8), torch.full((B,), 2.0)
    once(guider, x, t)
    want = denoise(x, t, texts["prompt"][0][0].expand(B, -1, -1))
    torch.testing.assert_close(seen[0]["cond_denoised"], want)


def test_what_it_remembers_ends_with_the_run(stub, texts):
    sigmas = torch.tensor([9.0, 3.0, 1.0, 0.0])
    noise = torch.randn(B, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    fresh, _ = built(stub, texts, "APG(5, momentum=-0.5)")
    want = fresh.sample(noise, noise, stub.euler, sigmas[1:])
    used, _ = built(stub, texts, "APG(5, momentum=-0.5)")
    used.sample(noise, noise, stub.euler, sigmas)
    assert torch.equal(used.sample(noise, noise, stub.euler, sigmas[1:]), want)
    plain, _ = built(stub, texts, "APG(5)")
    assert (plain.sample(noise, noise, stub.euler, sigmas[1:]) - want).norm() > 1e-3 * want.norm()


def test_the_other_nodes(stub, texts, monkeypatch):
    nodes = stub.nodes.NODE_CLASS_MAPPINGS
    model = stub.Model(stub.EPS(), denoise)
    (dns,) = nodes["DNPDNSGuider"]().make(stub.Patcher(model), texts["prompt"], texts["empty"], 4.0)
    x, t = torch.randn(B, 4, 8, 8), torch.full((B,), 2.0)
    p, u = (denoise(x, t, texts[name][0][0].expand(B, -1, -1)) for name in ("prompt", "empty"))
    torch.testing.assert_close(once(dns, x, t), u + 4 * (u - p), rtol=1e-5, atol=1e-5)
    written, latex, cost = nodes["DNPFormulaInfo"]().make("u + 7.5*(p - n)", steps=10)
    assert parse(written) == parse("u + 7.5*(p - n)") and "7.5" in latex and cost == 30
    sigmas = torch.tensor([10.0, 1.0, 0.1, 0.0])
    assert nodes["DNPFormulaInfo"]().make("Interval(CFG(3), 0.5, 5)", sigmas)[2] == 4

    import captioning

    class Named:
        name = "named"

        def __init__(self, which):
            self.which = which

        def __call__(self, images):
            assert images[0].size == (6, 4) and images[0].getpixel((5, 3)) == (255, 0, 128)
            return [f"a picture by {self.which}"]

    monkeypatch.setattr(captioning, "Transformers", Named)
    image = torch.zeros(1, 4, 6, 3)
    image[0, 3, 5] = torch.tensor([1.2, -0.1, 0.5])
    conditioning, caption = nodes["DNPCaption"]().make(image, stub.Clip(), "blip")
    assert caption == "a picture by blip"
    clip = stub.Clip()
    assert torch.equal(conditioning[0][0], clip.encode_from_tokens_scheduled(clip.tokenize(caption))[0][0])


def test_what_is_wrong_is_said_in_a_line(stub, texts):
    del texts["empty"]
    with pytest.raises(ValueError, match="names empty: connect a conditioning to that input"):
        built(stub, texts, "CFG(5)")
    with pytest.raises(ValueError, match="cannot read 'u \\+ '"):
        built(stub, texts, "u + ")


def test_the_example_is_the_paper_s_figure_1(stub):
    """Every link leads to an output of its type, and our nodes get the inputs that they have."""
    core = {  # the core's nodes: outputs
        "CheckpointLoaderSimple": ("MODEL", "CLIP", "VAE"),
        "CLIPTextEncode": ("CONDITIONING",),
        "EmptyLatentImage": ("LATENT",),
        "RandomNoise": ("NOISE",),
        "KSamplerSelect": ("SAMPLER",),
        "BasicScheduler": ("SIGMAS",),
        "SamplerCustomAdvanced": ("LATENT", "LATENT"),
        "VAEDecode": ("IMAGE",),
        "SaveImage": (),
    }
    mine = stub.nodes.NODE_CLASS_MAPPINGS
    outputs = core | {name: node.RETURN_TYPES for name, node in mine.items()}
    graph = json.loads((FOLDER / "dnp.json").read_text())
    for node in graph.values():
        if node["class_type"] in mine:
            kinds = mine[node["class_type"]].INPUT_TYPES()
            inputs = kinds["required"] | kinds.get("optional", {})
            assert kinds["required"].keys() <= node["inputs"].keys() <= inputs.keys()
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                kind = outputs[graph[value[0]]["class_type"]][value[1]]
                if node["class_type"] in mine:
                    assert inputs[name][0] == kind
    kinds = [node["class_type"] for node in graph.values()]
    assert kinds.count("SamplerCustomAdvanced") == 2 and {"DNPDNSGuider", "DNPCaption", "DNPFormulaGuider"} <= {*kinds}
    noises = {node["inputs"]["noise"][0] for node in graph.values() if node["class_type"] == "SamplerCustomAdvanced"}
    assert len(noises) == 1  # both pictures come from the same noise
    final = next(node for node in graph.values() if node["class_type"] == "DNPFormulaGuider")
    assert graph[final["inputs"]["negative"][0]]["class_type"] == "DNPCaption"


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked}:
            raise ModuleNotFoundError("blocked: " + name, name=name)
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {tests!r})
import warnings; warnings.filterwarnings("ignore")
import torch
import comfy_stub as stub
before = list(sys.path)
stub.install()
nodes = stub.load({folder!r}).NODE_CLASS_MAPPINGS
text = lambda v: [[torch.full((1, 3, 4), v), {{}}]]
model = stub.Model(stub.EPS(), lambda x, t, c: x * c.mean((1, 2)).view(-1, 1, 1, 1))
make = nodes["DNPFormulaGuider"]().make
(guider,) = make(stub.Patcher(model), text(.5), "u + 3*(p - u) - 2*(n - u)", text(.2), text(.1))
x = torch.ones(2, 4, 8, 8)
out = guider.sample(x, x, stub.euler, torch.tensor([2., 1., 0.]))
print(float(out.flatten()[0]), nodes["DNPFormulaInfo"]().make("CFG(7.5)")[2])
assert sys.path == before
assert not {{"samplers", "eval", "dnp", "numpy.core", "k_diffusion"}} & set(sys.modules), sys.modules.keys()
"""


def test_the_nodes_need_guidance_and_torch_alone(tmp_path):
    """In a process without the other packages, from a link in another folder, with nothing of ours in its path."""
    link = tmp_path / "custom_nodes" / "dnp"
    link.parent.mkdir()
    link.symlink_to(FOLDER, target_is_directory=True)
    rooms = ["guidance", "samplers", "eval", "dnp", "captioning"]  # not installed: found by the link
    blocked = ["k_diffusion", "diffusers", "transformers", "numpy", "PIL", *rooms]
    code = BLOCKED.format(blocked=set(blocked), tests=str(Path(__file__).parent), folder=str(link))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    # D = g·x with g = .1 + 3·.4 − 2·.1 = 1.1, from √5: two steps of Euler
    x = 5**0.5
    x = x + (x - 1.1 * x) / 2 * -1
    x = x + (x - 1.1 * x) * -1
    value, cost = done.stdout.split()
    assert abs(float(value) - x) < 1e-4 and cost == "40"


def linked(tmp_path):
    """The folder by another path, so that it is loaded anew."""
    link = tmp_path / "dnp"
    link.symlink_to(FOLDER, target_is_directory=True)
    return link


def test_another_package_named_guidance_is_not_taken_for_ours(stub, texts, tmp_path, monkeypatch):
    other = types.ModuleType("guidance")
    monkeypatch.setitem(sys.modules, "guidance", other)
    try:
        nodes = stub.load(linked(tmp_path)).NODE_CLASS_MAPPINGS
        model = stub.Model(stub.EPS(), denoise)
        (guider,) = nodes["DNPDNSGuider"]().make(stub.Patcher(model), texts["prompt"], texts["empty"], 4.0)
        assert type(guider.guidance).__module__.startswith("dnp_guidance.") and sys.modules["guidance"] is other
    finally:
        for name in [name for name in sys.modules if name.startswith("dnp_guidance")]:
            del sys.modules[name]


def test_an_old_comfyui_is_said_in_a_line(stub, tmp_path, monkeypatch):
    monkeypatch.delattr(sys.modules["comfy.samplers"], "calc_cond_batch")
    with pytest.raises(ImportError, match="these nodes are for ComfyUI as of commit 311c014"):
        stub.load(linked(tmp_path))


def test_a_copy_of_the_folder_says_to_link_it(stub, tmp_path, monkeypatch):
    shutil.copytree(FOLDER, tmp_path / "a" / "b" / "c" / "dnp")
    monkeypatch.setitem(sys.modules, "guidance", types.ModuleType("guidance"))
    with pytest.raises(ImportError, match="link the folder dnp/plugins/comfyui here, do not copy it"):
        stub.load(tmp_path / "a" / "b" / "c" / "dnp")
