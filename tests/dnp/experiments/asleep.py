"""Work for workers that takes longer than any test."""

import os
import time
from pathlib import Path


def asleep(folder, unit, threads):
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(600)
