"""Worker processes that end with their parent, however it ends. Imports little: it runs in a worker before all else."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection
from threading import Thread


def leash(held: Connection) -> None:
    """In a worker, end it as soon as nobody holds the other end of a pipe: the parent closed it, or is no more.

    Ctrl-C, which reaches all processes of a terminal, is left to the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        try:
            held.recv()
        except (EOFError, OSError):
            os._exit(1)

    Thread(target=wait, daemon=True).start()
