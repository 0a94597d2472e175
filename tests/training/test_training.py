import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn

from dnp.models.locate import EMBEDDED
from eval.world import ANIMALS, COLOURS, WEARABLE, WORDS, Scene, Thing
from training import autoencoder, words
from training.data import pictures
from training.drawings import SETS, FetchError, fetch, stand_ins
from training.loop import fit
from training.render import _tinted, _worn


def test_every_word_is_one_token():
    tokenizer = words.build(WORDS)
    for word in WORDS:
        assert len(tokenizer(word).input_ids) == 3  # with begin and end
    sentence = "a elephant and a orange balloon on a purple background"
    ids = tokenizer(sentence).input_ids
    assert len(ids) == 2 + len(sentence.split()) and max(ids) == tokenizer.eos_token_id  # which open_clip looks for
    assert 3 < len(tokenizer("zebra").input_ids) and tokenizer.unk_token_id not in tokenizer("zebra").input_ids[1:-1]


def test_pictures_are_the_same_again(tmp_path):
    first = pictures(tmp_path, 8, stand_ins)
    again = pictures(tmp_path, 8, stand_ins)  # from the file
    (tmp_path / "more").mkdir()
    more = pictures(tmp_path / "more", 12, stand_ins)
    assert np.array_equal(first.pixels, again.pixels) and np.array_equal(first.pixels, more.pixels[:8])
    assert first.layouts == again.layouts == more.layouts[:8]
    x = first.batch(torch.tensor([3, 0]))
    assert x.shape == (2, 3, 64, 64) and -1 <= x.min() and x.max() <= 1
    assert torch.equal(((x[1] + 1) * 127.5).round().byte().permute(1, 2, 0), torch.from_numpy(first.pixels[0]))


def test_tinted_things_have_their_colour():
    """The mean colour of a thing is nearest to its own of the eleven, whatever the drawing's was."""
    drawings = stand_ins()
    for colour, rgb in COLOURS.items():
        image = _tinted(drawings["apple"][0], colour)
        mean = image[image[..., 3] > 128][:, :3].astype(float).mean(0)
        nearest = min(COLOURS, key=lambda name: np.abs(mean - np.array(COLOURS[name])).sum())
        assert nearest == colour or np.abs(mean - np.array(rgb)).max() < 70, (colour, nearest)


@pytest.mark.parametrize("noun", WEARABLE)
def test_what_is_worn_overlaps_the_animal(noun):
    """A crown and a bow its upper half, glasses its face; and they are inside the picture."""
    rng = random.Random(3)
    for animal in ANIMALS:
        layout = _worn(Scene((Thing(animal), Thing(noun, "red")), "sea", True), [0, 0], rng)
        (_, x, y, side), (_, wx, wy, size) = layout.places
        assert abs(wx - x) < side / 2 and y - 0.8 * side < wy < y + 0.1 * side
        assert size / 2 <= wx <= 64 - size / 2 and size / 2 <= wy <= 64 - size / 2


def test_a_changed_or_missing_package_is_one_line(tmp_path):
    emoji = SETS[0]
    path = tmp_path / f"iconify-json-{emoji.name}-{emoji.version}.tgz"
    path.write_bytes(b"changed")
    with pytest.raises(FetchError, match="SHA-512 differs"):
        fetch(emoji, tmp_path)
    path.unlink()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(FetchError, match="install npm"):
        patch.setenv("PATH", str(tmp_path))
        fetch(emoji, tmp_path)


def test_whitened_latents_give_the_same_pictures(tmp_path):
    """Zero mean, unit variance in each channel, and the reconstructions of before."""
    drawn = pictures(tmp_path, 16, stand_ins)
    torch.manual_seed(0)
    model = autoencoder.build().requires_grad_(False).eval()
    x = drawn.batch(torch.arange(16))
    before = model.decode(model.encode(x).latent_dist.mean).sample
    spread = model.encode(x).latent_dist.std / model.encode(x).latent_dist.mean.std((0, 2, 3), keepdim=True)
    autoencoder._whiten(model, drawn)
    posterior = model.encode(x).latent_dist
    torch.testing.assert_close(posterior.mean.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(posterior.mean.std((0, 2, 3)), torch.ones(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(posterior.std, spread, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(model.decode(posterior.mean).sample, before, rtol=1e-3, atol=1e-4)


def _regression(work, steps, stop=None):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss(rng, step):
        if step == stop:
            raise KeyboardInterrupt
        x = torch.randn(16, 3, generator=rng)
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    fit("line", model, loss, steps, work, lr=0.05, ema=0.9, every=10)
    return model.weight.detach()


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    whole.mkdir(), halves.mkdir()
    weights = _regression(whole, 200)
    with pytest.raises(KeyboardInterrupt):
        _regression(halves, 200, stop=57)
    torch.testing.assert_close(_regression(halves, 200), weights, rtol=0, atol=0)
    torch.testing.assert_close(_regression(halves, 200, stop=0), weights, rtol=0, atol=0)  # finished: taken as it is
    torch.testing.assert_close(weights, torch.ones(1, 3), rtol=0, atol=0.02)


def test_training_stops_at_a_loss_that_is_not_a_number(tmp_path):
    model = nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="nan at step 0"):
        fit("bad", model, lambda rng, step: model.weight.sum() * float("nan"), 3, tmp_path)


def test_the_embedded_model_is_complete_and_small():
    assert sum(path.stat().st_size for path in EMBEDDED.rglob("*")) < 40e6
    for path in EMBEDDED.rglob("*.safetensors"):
        with safe_open(path, "pt") as weights:
            kinds = {weights.get_slice(key).get_dtype() for key in weights.keys()}  # noqa: SIM118
        assert kinds <= {"F16", "I64"}, path  # I64: BLIP's positions
    assert not [path for path in EMBEDDED.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".ckpt")]
    card = (EMBEDDED / "README.md").read_text()
    chosen = json.loads((EMBEDDED / "dnp.json").read_text())
    assert f"scale {chosen['scale']:g} |" in card and "right captions" in card


def test_training_runs_from_nothing_to_a_model_that_generates(tmp_path):
    out = tmp_path / "model"
    command = [sys.executable, "-m", "training", "--smoke", "--work", str(tmp_path / "work"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "How good it is" in done.stdout

    import open_clip

    from captioning import Transformers
    from dnp import DNP, Sampling
    from dnp.models.stable_diffusion import StableDiffusion

    recipe = DNP(StableDiffusion(str(out)), Transformers(out / "captioner"), sampling=Sampling(steps=2))
    try:
        result = recipe("a cat and a red balloon", seed=0)
        assert set(result.images) == {"plain", "dns", "dnp"}
    except ValueError as error:  # a captioner of a few steps may say nothing at all
        assert "caption" in str(error)
    assert open_clip.create_model(f"local-dir:{out / 'clip'}").visual is not None


def test_processes_take_turns_and_the_first_may_then_work_alone(tmp_path):
    script = tmp_path / "shared.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "import torch.distributed as dist\n"
        "from training.data import pictures\n"
        "from training.drawings import stand_ins\n"
        "from training.loop import in_turn\n"
        "dist.init_process_group('gloo')\n"
        "work = Path(sys.argv[1])\n"
        "with in_turn():\n"
        "    drawn = pictures(work, 8, stand_ins)\n"
        "if dist.get_rank() == 0:\n"
        "    pictures(work, 4, stand_ins, seed=1)  # as the measurements do, when the others are done\n"
        "(work / f'{dist.get_rank()}.txt').write_text(str(len(drawn.layouts)))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, str(script), str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in (0, 1)] == ["8", "8"]
