"""What is timed must be the same thing on both sides; the numbers of speed are `make bench`'s and `dnp compare`'s."""

import random

import pytest
import torch
from k_diffusion.external import DiscreteEpsDDPMDenoiser, DiscreteVDDPMDenoiser
from scipy.stats import norm

from dnp.errors import DNPError
from dnp.models.denoisers import EpsDenoiser, VDenoiser
from dnp.speed.bench import CASES, case
from dnp.speed.compare import compare
from dnp.speed.timing import interleave, ratio


@pytest.mark.parametrize("guidance, closure", CASES, ids=str)
def test_the_closures_by_hand_compute_the_guidances(embedded, guidance, closure):
    ours, theirs = (step() for step in case(embedded, guidance, closure, 2))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ours, theirs", [(EpsDenoiser, DiscreteEpsDDPMDenoiser), (VDenoiser, DiscreteVDDPMDenoiser)])
@pytest.mark.parametrize("quantize", [False, True])
def test_denoisers_are_k_diffusion_s_to_the_bit(ours, theirs, quantize):
    net = torch.nn.Linear(8, 8)
    alphas = torch.linspace(0.9999, 0.005, 1000).cumprod(0).clamp(min=1e-4).unique().flip(0)

    def model(x, t, scale):
        return torch.sin(net(x)) * scale + t.view(-1, 1) / 1000

    a, b = (kind(model, alphas, quantize) for kind in (ours, theirs))
    drawn = (torch.rand(500, generator=torch.Generator().manual_seed(0)) * 14 - 7).exp()
    for sigma in (a.sigmas, drawn, torch.tensor([1e-9, 1e9]), torch.tensor(2.0)):  # in the table, between, beyond
        assert torch.equal(a.sigma_to_t(sigma), b.sigma_to_t(sigma))
    x = torch.randn(500, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(a(x, drawn, scale=2), b(x, drawn, scale=2))
    gradients = []
    for denoiser in (a, b):
        leaf = x.clone().requires_grad_()
        denoiser(leaf, drawn, scale=2).square().sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_the_interval_holds_the_median_as_often_as_it_says():
    draw, inside, trials = random.Random(0), 0, 2000
    for _ in range(trials):
        found = ratio([draw.lognormvariate(0, 1) for _ in range(25)], [1.0] * 25)
        inside += found.low <= 1 <= found.high
    share, wanted = inside / trials, 1 - 2 * norm.sf(1.96)
    assert wanted - 0.01 < share < 1  # of order statistics: never below 95 %, up to rounding
    assert str(ratio([2.0] * 5, [1.0] * 5)) == "2.000 [too few]"


def test_runs_alternate():
    seen = []
    pair = interleave(lambda: seen.append("a"), lambda: seen.append("b"), 4)
    assert "".join(seen) == "baabbaab"
    assert [len(times) for times in (*pair.wall, *pair.cpu)] == [4] * 4


def test_compare_times_the_same_pictures(capsys):
    compare(steps=2, batches=[2], repeats=1)
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")]
    assert cells[0] == "2" and cells[5] == "4 / 4" and cells[7] == "1"
    assert cells[6] in ("0 of 255", "1 of 255")
    assert all(float(value) > 0 for value in cells[3].split(" / "))


@pytest.mark.parametrize(
    "options, named", [({"sampler": "heun"}, "heun"), ({"random": "sd9"}, "sd9"), ({"batches": [0]}, "batch")]
)
def test_what_cannot_be_compared_is_named(options, named):
    with pytest.raises(DNPError, match=named):
        compare(**options)
