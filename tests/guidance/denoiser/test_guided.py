r"""The guided denoiser against a hand-written loop, and what it saves, counts and refuses."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from guidance import CFG, DNS, GuidanceError, GuidedDenoiser, NegPrompt, parse, prediction

p, n, u = prediction("prompt"), prediction("negative"), prediction("empty")
EXECUTIONS = ["batched", "sequential", 1, 2, 5, 100]


class Net(nn.Module):
    r"""A denoiser with attention over tokens, a pooled vector, a nested argument and a flag."""

    sigma_min = 0.1

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.key, self.value = nn.Linear(6, 12), nn.Linear(6, 12)
        self.to(dtype)
        self.calls = []

    def forward(self, x, sigma, cond, extra=None, flag=1.0):
        self.calls.append(len(x))
        assert len(sigma) == len(cond) == len(x)
        query = x.flatten(1).to(cond.dtype)
        scores = torch.einsum("bd,btd->bt", query, self.key(cond)).softmax(-1)
        out = torch.einsum("bt,btd->bd", scores, self.value(cond))
        if extra is not None:
            out = out + extra["add"][0][:, None] * extra["shift"]
        out = out.tanh() * flag / (1 + sigma[:, None]).to(out.dtype)
        return out.view_as(x)


@pytest.fixture
def net():
    return Net()


def setting(batch=3, tokens=(4, 4, 4), seed=1):
    g = torch.Generator().manual_seed(seed)
    x, sigma = torch.randn(batch, 3, 2, 2, generator=g), torch.rand(batch, generator=g) + 0.5
    conditions = {
        name: {
            "cond": torch.randn(batch, length, 6, generator=g),
            "extra": {"add": [torch.randn(batch, generator=g)], "shift": torch.tensor(0.5)},
        }
        for name, length in zip(["prompt", "negative", "empty"], tokens, strict=True)
    }
    return x, sigma, conditions


def loop(net, weights, x, sigma, conditions):
    return sum(w * net(x, sigma, **conditions[name]).float() for name, w in weights.items())


@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("tokens", [(4, 4, 4), (4, 6, 4), (3, 4, 5)])
def test_equals_a_loop_over_the_denoiser(net, execution, tokens):
    for seed in range(3):
        x, sigma, conditions = setting(tokens=tokens, seed=seed)
        expected = loop(net, {"prompt": 7.5, "negative": -1.5, "empty": -5}, x, sigma, conditions)
        model = NegPrompt(7.5, strength=1.5).wrap(net, execution)
        torch.testing.assert_close(model(x, sigma, **conditions), expected, atol=1e-6, rtol=1e-6)
        assert model.evaluations == 3


@pytest.mark.parametrize(
    ("execution", "calls"),
    [("batched", [9]), ("sequential", [3] * 3), (1, [1] * 9), (2, [2] * 4 + [1]), (5, [5, 4]), (100, [9])],
)
def test_execution_bounds_the_rows_of_a_forward(net, execution, calls):
    x, sigma, conditions = setting()
    model = NegPrompt(7.5).wrap(net, execution)
    model(x, sigma, **conditions)
    assert net.calls == calls and model.forwards == len(calls)
    model.reset()
    assert model.evaluations == model.forwards == 0


def test_lengths_and_flags_that_differ_go_apart(net):
    x, sigma, conditions = setting(tokens=(4, 6, 4))
    NegPrompt(7.5).wrap(net)(x, sigma, **conditions)
    assert sorted(net.calls) == [3, 6]
    x, sigma, conditions = setting()
    conditions["negative"]["flag"] = 2.0
    model = NegPrompt(7.5).wrap(net)
    expected = loop(net, {"prompt": 7.5, "negative": -7.5, "empty": 1}, x, sigma, conditions)
    net.calls.clear()
    torch.testing.assert_close(model(x, sigma, **conditions), expected, atol=1e-6, rtol=1e-6)
    assert sorted(net.calls) == [3, 6]


def test_a_batch_of_one_serves_all_samples(net):
    x, sigma, conditions = setting()
    single = {name: {"cond": c["cond"][:1]} for name, c in conditions.items()}
    expanded = {name: {"cond": c["cond"].expand(3, -1, -1)} for name, c in single.items()}
    model = NegPrompt(7.5).wrap(net)
    torch.testing.assert_close(model(x, sigma, **single), model(x, sigma, **expanded))
    single["empty"] = {"cond": expanded["prompt"]["cond"].clone()}  # the same, written differently
    model.reset()
    model(x, sigma, **single)
    assert model.evaluations == 2


@pytest.mark.parametrize("nest", [lambda t: {"a": t}, lambda t: (t, None), lambda t: [{"b": (t, "x", {})}, 3]])
def test_nests_keep_their_types(nest):
    seen = []

    def denoiser(x, sigma, tree):
        seen.append(tree)
        return x

    x, sigma = torch.ones(2, 3), torch.ones(2)
    zeros, ones = {"tree": nest(torch.zeros(2, 1))}, {"tree": nest(torch.ones(1, 1))}
    CFG(2).wrap(denoiser)(x, sigma, empty=zeros, prompt=ones)
    expected = nest(torch.tensor([[0.0], [0.0], [1.0], [1.0]]))

    def check(a, b):
        assert type(a) is type(b)
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b)
        elif isinstance(a, dict):
            assert a.keys() == b.keys() and all(check(a[k], b[k]) for k in a)
        elif isinstance(a, (list, tuple)):
            assert len(a) == len(b) and all(check(i, j) for i, j in zip(a, b, strict=True))
        else:
            assert a == b
        return True

    assert check(seen[0], expected) and len(seen) == 1


def test_conditions_that_are_the_same_are_evaluated_once(net):
    x, sigma, conditions = setting()
    for same in (conditions["empty"], {k: v for k, v in conditions["empty"].items()}):
        conditions["negative"] = same
        model = NegPrompt(7.5).wrap(net)
        expected = loop(net, {"prompt": 7.5, "empty": -6.5}, x, sigma, conditions)
        torch.testing.assert_close(model(x, sigma, **conditions), expected, atol=1e-6, rtol=1e-6)
        assert model.evaluations == 2 == NegPrompt(7.5).cost([1.0], **conditions)
    # Weights that cancel when merged are not evaluated at all.
    conditions["negative"] = {**conditions["prompt"]}
    model = NegPrompt(7.5).wrap(net)
    torch.testing.assert_close(model(x, sigma, **conditions), net(x, sigma, **conditions["empty"]))
    assert model.evaluations == 1 == NegPrompt(7.5).cost([1.0], **conditions)


def test_stacked_conditions_are_kept_until_they_change(net, monkeypatch):
    x, sigma, conditions = setting()
    model = CFG(3).wrap(net)
    made = []
    cat, equal = torch.cat, torch.equal
    monkeypatch.setattr(torch, "cat", lambda *a, **k: made.append("cat") or cat(*a, **k))
    monkeypatch.setattr(torch, "equal", lambda *a, **k: made.append("equal") or equal(*a, **k))
    model(x, sigma, **conditions)
    assert made
    made.clear()
    model(x, sigma, **conditions)
    assert not made
    conditions["prompt"]["cond"].mul_(2)
    changed = model(x, sigma, **conditions)
    monkeypatch.undo()
    assert made
    expected = loop(net, {"prompt": 3, "empty": -2}, x, sigma, conditions)
    torch.testing.assert_close(changed, expected, atol=1e-6, rtol=1e-6)
    conditions["prompt"] = {**conditions["negative"]}
    expected = loop(net, {"prompt": 3, "empty": -2}, x, sigma, conditions)
    torch.testing.assert_close(model(x, sigma, **conditions), expected, atol=1e-6, rtol=1e-6)


def test_inference_mode_and_gradients(net):
    x, sigma, conditions = setting()
    model = CFG(3).wrap(net)
    with torch.inference_mode():
        inside = {name: {"cond": c["cond"] * 1} for name, c in conditions.items()}
        before = model(x, sigma, **inside)
        inside["prompt"]["cond"].mul_(2)
        assert not torch.equal(before, model(x, sigma, **inside))
    with torch.no_grad():
        model(x, sigma, **conditions)
    learnt = conditions["prompt"]["cond"].requires_grad_()
    expected = torch.autograd.grad(loop(net, {"prompt": 3, "empty": -2}, x, sigma, conditions).sum(), learnt)
    for _ in range(2):
        found = torch.autograd.grad(model(x, sigma, **conditions).sum(), learnt)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_scales_per_sample_and_over_sigma(net):
    x, _, conditions = setting()
    sigma = torch.tensor([0.5, 0.5, 0.5])
    per_sample = torch.tensor([1.0, 7.5, 3.0])
    guided = CFG(per_sample).wrap(net)(x, sigma, **conditions)
    for i, s in enumerate(per_sample.tolist()):
        alone = CFG(s).wrap(net)(x, sigma, **conditions)[i]
        torch.testing.assert_close(guided[i], alone, atol=1e-6, rtol=1e-6)

    model = CFG(lambda sigma: 7.5 * (sigma > 1) + 1.0 * (sigma <= 1)).wrap(net)
    torch.testing.assert_close(model(x, sigma, **conditions), net(x, sigma, **conditions["prompt"]))
    assert model.evaluations == 1
    model(x, sigma + 1, **conditions)
    assert model.evaluations == 3 == model.guidance.cost([1.5, 0.5, 0.0])

    model = CFG(lambda sigma: torch.full_like(sigma, 1.0 + 1e-7)).wrap(net)
    model(x, sigma, **conditions)
    assert model.evaluations == 1
    model = CFG(torch.ones(3)).wrap(net)  # what the tensor will hold at the next step, nobody knows
    model(x, sigma, **conditions)
    assert model.evaluations == 2


def test_counts_are_what_was_announced(net):
    sigmas = torch.tensor([10.0, 3.0, 0.9, 0.2, 0.0])
    late = lambda sigma: torch.where(sigma > 1, 0.0, 7.5)  # noqa: E731
    x, _, conditions = setting()
    for guidance, cost in [
        (CFG(7.5), 8),
        (CFG(1), 4),
        (CFG(0), 4),
        (DNS(7.5), 8),
        (NegPrompt(7.5), 12),
        (NegPrompt(7.5, evaluations=2), 8),
        (NegPrompt(7.5, strength=1), 12),
        (NegPrompt(7.5, strength=late), 10),
        (CFG(torch.tensor([1.0, 2.0, 1.0])), 8),
        (CFG(7.5) + 2 * (p - n), 12),
    ]:
        assert guidance.cost(sigmas) == guidance.cost(sigmas.tolist()) == cost
        for execution in EXECUTIONS:
            model = guidance.wrap(net, execution)
            for sigma in sigmas[:-1]:
                model(x, sigma.expand(3), **conditions)
            assert model.evaluations == cost


def test_combines_in_float32_and_returns_the_dtype_of_x():
    net = Net(torch.bfloat16)
    x, sigma, conditions = setting()
    low = {name: {"cond": c["cond"].bfloat16()} for name, c in conditions.items()}
    expected = loop(net, {"prompt": 30, "empty": -29}, x, sigma, low)
    seen = {}
    model = CFG(30).wrap(net, "sequential", trace=lambda sigma, parts, out: seen.update(parts, out=out))
    torch.testing.assert_close(model(x, sigma, **low), expected, atol=1e-5, rtol=1e-5)
    assert {v.dtype for v in seen.values()} == {torch.float32}
    out = model(x.bfloat16(), sigma, **low)
    assert out.dtype == torch.bfloat16

    net = Net(torch.float64)
    x, sigma, conditions = setting()
    high = {name: {"cond": c["cond"].double()} for name, c in conditions.items()}
    expected = 30 * net(x.double(), sigma, **high["prompt"]) - 29 * net(x.double(), sigma, **high["empty"])
    torch.testing.assert_close(CFG(30).wrap(net)(x.double(), sigma, **high), expected, atol=1e-12, rtol=1e-12)


def test_trace_sees_the_parts(net):
    x, sigma, conditions = setting()
    seen = []
    out = DNS(2).wrap(net, trace=lambda *given: seen.append(given))(x, sigma, **conditions)
    (level, parts, denoised), = seen  # fmt: skip
    assert torch.equal(level, sigma) and torch.equal(denoised, out) and set(parts) == {"prompt", "empty"}
    torch.testing.assert_close(out, 3 * parts["empty"] - 2 * parts["prompt"])


def test_is_the_denoiser_for_everything_else(net):
    model = CFG(2).wrap(net)
    assert model.sigma_min == 0.1 and model.inner_model is net and model.calls is net.calls
    assert list(model.parameters())[0] is net.key.weight and model.to(torch.float32) is model
    with pytest.raises(AttributeError, match="nothing"):
        _ = model.nothing


def test_samples_never_influence_each_other(net):
    x, sigma, conditions = setting()
    model = NegPrompt(7.5).wrap(net)
    before = model(x, sigma, **conditions)
    y = x.clone()
    y[0] += 100
    torch.testing.assert_close(model(y, sigma, **conditions)[1:], before[1:], atol=1e-6, rtol=1e-6)


def refused(why, call):
    with pytest.raises(GuidanceError, match=why) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_errors_name_what_is_wrong(net):
    x, sigma, conditions = setting()
    model = NegPrompt(7.5).wrap(net)
    some = {"prompt": conditions["prompt"], "empty": conditions["empty"]}
    refused(
        r"negative is missing: ε\(empty\).* needs empty, negative, prompt, given is prompt, empty",
        lambda: model(x, sigma, **some),
    )
    refused("given is none", lambda: model(x, sigma))
    refused("'negative' must be a mapping .* not a Tensor", lambda: model(x, sigma, **some, negative=x))
    wrong = {**some, "negative": {"cond": torch.zeros(2, 4, 6)}}
    refused(r"negative\['cond'\] has the shape \(2, 4, 6\).*1 or 3", lambda: model(x, sigma, **wrong))
    refused(r"sigma has the shape \(2,\), but x has 3", lambda: model(x, sigma[:2], **conditions))
    refused(r"sigma has the shape \(\)", lambda: model(x, sigma[0], **conditions))

    per_sample = CFG(torch.tensor([1.5, 2.5])).wrap(net)
    refused(r"scale s has the shape \(2,\), but the batch has 3", lambda: per_sample(x, sigma, **conditions))
    broken = parse("u + w*(p - u)", w=lambda sigma: sigma * float("nan")).wrap(net)
    refused("the scale w is not finite at sigma", lambda: broken(x, sigma, **conditions))
    worded = CFG(lambda sigma: "much").wrap(net)
    refused("a scale is .*'much'", lambda: worded(x, sigma, **conditions))

    conditions["negative"]["cond"][1] = float("nan")
    refused("prediction for negative is not finite at sigma", lambda: model(x, sigma, **conditions))
    refused("x was not finite", lambda: CFG(2).wrap(net)(x * float("nan"), sigma, **conditions))
    big = CFG(1e38).wrap(lambda x, s, **k: x + 1000 * k["cond"].mean((1, 2))[:, None, None, None])
    refused("though its parts are", lambda: big(x, sigma, **conditions))
    refused(r"returned tuple", lambda: CFG(2).wrap(lambda x, s, **k: (x,))(x, sigma, **conditions))
    refused(r"returned \(3,\)", lambda: CFG(1).wrap(lambda x, s, **k: s)(x, sigma, **conditions))
    net.sigma_max = 5.0
    clamped = CFG(2).wrap(net)
    refused(
        r"sigma 0.06 is outside the denoiser's noise levels, 0.1 to 5: make",
        lambda: clamped(x, sigma * 0 + 0.06, **some, negative=some["prompt"]),
    )
    refused("sigma 8 is outside", lambda: clamped(x, torch.tensor([1.0, 8.0, 1.0]), **some))
    clamped(x, torch.tensor([0.099, 5.01, 7.0]), **some)  # rounding, and what a sampler's churn adds
    for execution in (0, -1, True, "fast", 1.5, None):
        refused("execution is", lambda e=execution: CFG(2).wrap(net, e))
    refused("a denoiser is called as", lambda: CFG(2).wrap(None))


def test_importing_it_imports_torch_and_nothing_heavier():
    heavy = {"k_diffusion", "diffusers", "transformers", "open_clip", "torchvision", "PIL"}
    code = f"import sys, guidance; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_keywords_beside_the_conditions(net):
    x, sigma, conditions = setting()
    plain = NegPrompt(7.5).wrap(net)
    doubled = {name: {**condition, "flag": 2.0} for name, condition in conditions.items()}
    expected = plain(x, sigma, **doubled)
    # What is no mapping is for all evaluations; mappings for all go in `shared`; a condition's own keyword wins.
    torch.testing.assert_close(plain(x, sigma, **conditions, flag=2.0), expected)
    torch.testing.assert_close(plain(x, sigma, **conditions, shared={"flag": 2.0}), expected)
    torch.testing.assert_close(plain(x, sigma, **doubled, flag=3.0, shared={"flag": 4.0}), expected)
    extra = {"extra": {"add": [torch.ones(3)], "shift": torch.tensor(2.0)}}
    bare = {name: {"cond": condition["cond"]} for name, condition in conditions.items()}
    expected = plain(x, sigma, **{name: {**condition, **extra} for name, condition in bare.items()})
    torch.testing.assert_close(plain(x, sigma, **bare, shared=extra), expected)
    # Usual names that the formula does not need are accepted, others are not.
    u, p = (net(x, sigma, **conditions[name]) for name in ("empty", "prompt"))
    torch.testing.assert_close(CFG(3).wrap(net)(x, sigma, **conditions), u + 3 * (p - u), atol=1e-6, rtol=1e-6)
    refused(
        r"has no condition 'promt': did you mean prompt\? \(a mapping that is for all conditions goes in shared=",
        lambda: CFG(3).wrap(net)(x, sigma, promt=conditions["prompt"], empty=conditions["empty"]),
    )
    refused("'extra', needed are empty, prompt", lambda: CFG(3).wrap(net)(x, sigma, **bare, **extra))
    refused("no condition 'uncond': did you mean empty?", lambda: plain(x, sigma, uncond={}, cond={}))


def test_what_people_give_as_sigma_and_guidance(net):
    x, sigma, conditions = setting()
    refused(r"sigma is 0.5, but x has 3 samples: .*sigma \* x.new_ones\(3\)", lambda: CFG(2).wrap(net)(x, 0.5))
    refused(r"such as CFG\(7.5\) or parse\('CFG\(7.5\)'\), not 'CFG\(7.5\)'", lambda: GuidedDenoiser(net, "CFG(7.5)"))
    refused("any_sigma=True", lambda: CFG(2).wrap(net)(x, sigma / 100, **conditions))
    beyond = CFG(2).wrap(net, any_sigma=True)(x, sigma / 100, **conditions)
    expected = loop(net, {"prompt": 2, "empty": -1}, x, sigma / 100, conditions)
    torch.testing.assert_close(beyond, expected, atol=1e-6, rtol=1e-6)


def test_scales_over_the_picture(net):
    x, sigma, conditions = setting()
    u, p = (net(x, sigma, **conditions[name]) for name in ("empty", "prompt"))
    g = torch.Generator().manual_seed(4)
    for shape in ((3, 1, 2, 2), (1, 3, 1, 1), (3, 3, 2, 2), (1,), ()):
        scale = torch.rand(shape, generator=g)
        expected = u + (scale if scale.ndim else scale.item()) * (p - u)
        torch.testing.assert_close(CFG(scale).wrap(net)(x, sigma, **conditions), expected, atol=1e-6, rtol=1e-6)
    live = torch.zeros(3, 1, 2, 2)
    model = CFG(live).wrap(net)
    torch.testing.assert_close(model(x, sigma, **conditions), u)
    live += 2
    torch.testing.assert_close(model(x, sigma, **conditions), u + 2 * (p - u), atol=1e-6, rtol=1e-6)
    assert model.evaluations == 4 == model.guidance.cost([1.0, 0.5])
    refused(r"the shape \(1, 1, 5, 5\)", lambda: CFG(torch.ones(1, 1, 5, 5)).wrap(net)(x, sigma, **conditions))
