"""The Inception Score against torch-fidelity and torchmetrics, to 1e-5, and in closed form."""

import pytest
import torch

from eval.metrics.inception import Inception, inception_score


def test_inception_score_against_torch_fidelity():
    from torch_fidelity.metric_isc import isc_features_to_metric

    for count, classes, splits in ((100, 7, 10), (53, 20, 5)):
        logits = 3 * torch.randn(count, classes, generator=torch.Generator().manual_seed(count))
        theirs = isc_features_to_metric(logits, splits=splits)
        ours = inception_score(logits, splits)
        assert ours[0] == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
        assert ours[1] == pytest.approx(theirs["inception_score_std"], rel=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torchmetrics' own: its deviation of a single split
def test_inception_score_against_torchmetrics():
    """Of one split: torchmetrics shuffles by its own draw before it splits."""
    from torchmetrics.image.inception import InceptionScore

    logits = 3 * torch.randn(60, 12, generator=torch.Generator().manual_seed(0))
    theirs = InceptionScore(feature=torch.nn.Flatten(), splits=1)
    theirs.update(logits.view(60, 12, 1, 1))
    assert inception_score(logits, splits=1)[0] == pytest.approx(float(theirs.compute()[0]), rel=1e-5)


def test_inception_score_in_closed_form():
    certain = torch.eye(4).repeat(25, 1) * 1e3  # sure of one of four classes, equally often: exp(log 4)
    assert inception_score(certain, splits=1) == pytest.approx((4, 0))
    assert inception_score(torch.zeros(20, 4), splits=2) == pytest.approx((1, 0))
    with pytest.raises(ValueError, match="needs that many pictures, there are 3"):
        inception_score(torch.zeros(3, 4))


def test_inception_network_against_torch_fidelity(tmp_path, monkeypatch, world):
    """The whole way on a folder of pictures, with weights of a file; random ones, as the real cannot be had offline."""
    import torch_fidelity
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.manual_seed(0)
    with monkeypatch.context() as patch:
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, weights: None)
        network = FeatureExtractorInceptionV3("inception", ["logits_unbiased"])
    weights = tmp_path / "weights.pth"
    torch.save(network.state_dict(), weights)
    (tmp_path / "pictures").mkdir()
    images = world[0][:4]
    for i, image in enumerate(images):
        image.save(tmp_path / "pictures" / f"{i}.png")
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "pictures"),
        isc=True,
        isc_splits=2,
        cuda=False,
        cache=False,
        verbose=False,
        feature_extractor_weights_path=str(weights),
    )
    ours = inception_score(Inception(weights)(images), splits=2)
    assert ours[0] == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert ours[1] == pytest.approx(theirs["inception_score_std"], abs=1e-5)


def test_inception_weights_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="no Inception weights"):
        Inception(tmp_path / "none.pth")
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="does not hold torch-fidelity's Inception"):
        Inception(tmp_path / "bad.pth")
