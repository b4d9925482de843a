"""Loading without other libraries' progress bars and warnings; the process is left as it was found."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import huggingface_hub.utils as hub
from transformers.utils import logging

# Switches of whole processes, which two threads must not set and restore in turns. Loads wait for each other anyway:
# transformers sets torch's default dtype while it loads.
_SWITCHES = threading.RLock()


@contextmanager
def quietly() -> Iterator[None]:
    """A block, or as `@quietly()` a function, in which transformers, PEFT and the hub show no bars and warn of nothing.

    Errors are raised as ever, and records of logging pass. One thread is in such a block at a time.
    """
    with _SWITCHES, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bars, downloads = logging.is_progress_bar_enabled(), not hub.are_progress_bars_disabled()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            if bars:
                logging.enable_progress_bar()
            (hub.enable_progress_bars if downloads else hub.disable_progress_bars)()
