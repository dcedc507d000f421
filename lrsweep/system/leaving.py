"""The end of a command: everything is written, and nobody needs to see torch being taken apart."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from typing import NoReturn

from lrsweep import user_imports


def leave(code: int) -> NoReturn:
    """End this process with `code`.

    At once after what was registered for the end and what is left in the streams: Python would go on to free every
    object of every package, which takes a tenth of a second. The user's code may count on that, for a file it left
    open, and so may threads.
    """
    if not user_imports.LOADED and threading.active_count() == 1:
        atexit._run_exitfuncs()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            sys.exit(code)  # which tells it as always
        os._exit(code)
    sys.exit(code)
