import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]


def test_runs(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "examples" / "captioner.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1]
    assert said.startswith("negative prompt: a ") and said.endswith(" background")
    plain, dns, dnp = (np.asarray(Image.open(tmp_path / f"{arm}.png")) for arm in ("plain", "dns", "dnp"))
    assert not np.array_equal(plain, dnp) and not np.array_equal(dns, dnp)
