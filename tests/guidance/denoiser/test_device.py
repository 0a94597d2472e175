r"""A step that never waits for the device: fake tensors, compiled graphs, transforms, and what is noted meanwhile."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from guidance import (
    APG,
    CFG,
    DNS,
    Composable,
    CosineScale,
    DynamicThreshold,
    GuidanceError,
    Interval,
    NegPrompt,
    PerpNeg,
    Rescale,
    StepScale,
)

RULES = [
    CFG(7.5),
    NegPrompt(7.5),
    NegPrompt(7.5, evaluations=2),
    DNS(7.5),
    Composable(cat=3, prompt=2),
    Rescale(CFG(7.5), 0.7),
    APG(7.5, threshold=2, momentum=-0.5),
    PerpNeg(7.5),
    DynamicThreshold(CFG(7.5)),
]


def denoiser(x, sigma, cond):
    return cond + 0.3 * torch.sin(x + cond.roll(1, 1)) / (1 + sigma.view(-1, 1, 1, 1))


denoiser.sigma_min, denoiser.sigma_max = 0.03, 15.0


def setting(guidance, device="cpu", batch=2):
    g = torch.Generator().manual_seed(0)
    draw = lambda: torch.randn(batch, 3, 4, 4, generator=g).to(device)  # noqa: E731
    return draw(), {name: {"cond": draw()} for name in guidance.names}


@pytest.mark.parametrize("guidance", [*RULES, None], ids=str)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_step_reads_nothing_back(guidance, device):
    # A fake tensor has no values: to read one is an error, and on a CUDA device nobody tries.
    with FakeTensorMode():
        guidance = guidance or CFG(torch.rand(2, 1, 4, 4))
        x = torch.empty(2, 3, 4, 4, device=device)
        conditions = {name: {"cond": torch.empty(2, 3, 4, 4, device=device)} for name in guidance.names}
        model = guidance.wrap(denoiser)
        for _ in range(2):
            out = model(x, torch.empty(2, device=device), **conditions)
            assert out.shape == x.shape and out.device == x.device


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    yield torch._dynamo
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "guidance",
    [Rescale(NegPrompt(7.5), 0.7), PerpNeg(CosineScale(7.5, 1, 10, 0.3)), CFG(torch.tensor([2.0, 3.0]))],
    ids=str,
)
@torch._dynamo.config.patch(error_on_recompile=True)
def test_one_graph_serves_a_whole_schedule(guidance, dynamo):
    x, conditions = setting(guidance)
    model, plain = guidance.wrap(denoiser), guidance.wrap(denoiser)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for level in torch.linspace(10, 0.1, 30):
        sigma = level.expand(2).clone()
        expected = plain(x, sigma, **conditions)
        torch.testing.assert_close(compiled(x, sigma, **conditions), expected, atol=1e-5, rtol=1e-5)
    assert model.forwards == plain.forwards and model.evaluations == plain.evaluations
    model.check()


def test_a_compiled_step_notes_what_went_wrong(dynamo):
    guidance = CFG(7.5)
    x, conditions = setting(guidance)
    model = guidance.wrap(denoiser)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    compiled(x, torch.ones(2), **conditions)
    compiled(x, torch.tensor([1.0, 90.0]), **conditions)
    compiled(x * torch.nan, torch.ones(2), **conditions)
    with pytest.raises(GuidanceError, match=r"at call 2, sample 1, .*or sigma is outside the .*, 0.03 to 15"):
        model.check()
    model.reset()
    model.check()
    x[0, 0] = torch.inf
    compiled(x, torch.ones(2), **conditions)
    with pytest.raises(GuidanceError, match="at call 1, sample 0, x or a prediction is not finite"):
        model.check()


def test_gradients_reach_x_and_the_scales(dynamo):
    scale = torch.tensor([2.0, 0.0], requires_grad=True)
    guidance = CFG(scale)
    x, conditions = setting(guidance)
    x.requires_grad_()
    model = guidance.wrap(denoiser)
    for call in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        dx, ds = torch.autograd.grad(call(x, torch.ones(2), **conditions).square().sum(), (x, scale))
        u, p = (denoiser(x, torch.ones(2), **conditions[name]) for name in ("empty", "prompt"))
        by_hand = u + scale.view(2, 1, 1, 1) * (p - u)
        expected = torch.autograd.grad(by_hand.square().sum(), (x, scale))
        torch.testing.assert_close((dx, ds), expected, atol=1e-4, rtol=1e-5)
    mask = torch.rand(1, 1, 4, 4, requires_grad=True)
    guidance = NegPrompt(mask, strength=mask)
    x, conditions = setting(guidance)
    guidance.wrap(denoiser)(x, torch.ones(2), **conditions).sum().backward()
    p, n = (denoiser(x, torch.ones(2), **conditions[name]) for name in ("prompt", "negative"))
    torch.testing.assert_close(mask.grad, (p - n).sum((0, 1), keepdim=True), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("guidance", [*RULES, Interval(CFG(7.5), 0.5, 2)], ids=str)
def test_transforms_over_x(guidance):
    x, conditions = setting(guidance)
    xs, sigma = torch.stack([x, x + 1, x * 2]), torch.ones(2)
    model = guidance.wrap(denoiser)
    found = torch.func.vmap(lambda x: model(x, sigma, **conditions))(xs)
    model.reset()
    for x, out in zip(xs, found, strict=True):
        torch.testing.assert_close(out, guidance.wrap(denoiser)(x, sigma, **conditions), atol=1e-5, rtol=1e-5)
    along = torch.func.jvp(lambda x: guidance.wrap(denoiser)(x, sigma, **conditions), (x,), (torch.ones_like(x),))[1]
    near = [guidance.wrap(denoiser)((x + h).double(), sigma, **conditions) for h in (-1e-3, 1e-3)]
    torch.testing.assert_close(along.double(), (near[1] - near[0]) / 2e-3, atol=1e-2, rtol=1e-2)


def test_the_sampler_may_tell_the_noise_level():
    # Tensors of the meta device have no values either.
    guidance, rows = Interval(CFG(StepScale(7.5, 1, 1)), 0.5, 2), []
    model = guidance.wrap(lambda x, sigma, cond: rows.append(len(x)) or denoiser(x, sigma, cond))
    x, conditions = setting(guidance, "meta")
    sigma = torch.empty(2, device="meta")
    for level, cost in ((3.0, 1), (1.5, 2), (1.0, 1)):
        rows.clear()
        model.tell(sigma, level)
        model(x, sigma, **conditions)
        assert sum(rows) / 2 == cost == guidance.cost([level])
