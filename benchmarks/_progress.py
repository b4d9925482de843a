"""What the benchmarks share: to say on stderr what is measured now."""

import sys
import time

_START = time.perf_counter()


def say(step: str) -> None:
    """Print a step, behind the seconds since the start."""
    print(f"[{time.perf_counter() - _START:4.0f} s] {step}", file=sys.stderr, flush=True)
