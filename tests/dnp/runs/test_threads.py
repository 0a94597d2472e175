"""The number of threads of a run."""

import torch

from dnp.runs.threads import default_threads, threads


def test_small_models_compute_with_one_thread(tmp_path):
    (tmp_path / "unet").mkdir()
    with open(tmp_path / "unet" / "weights", "wb") as file:
        file.truncate(2**28 - 1)
    before = torch.get_num_threads()
    with threads(3):
        assert default_threads(tmp_path) == default_threads(tmp_path / "unet" / "weights") == 1
        (tmp_path / "more").write_bytes(b"x")
        assert default_threads(tmp_path) == torch.get_num_threads() == 3
    assert torch.get_num_threads() == before
