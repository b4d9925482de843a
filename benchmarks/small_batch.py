"""The linear layers of a decoding step on a CPU: `SmallBatchLinear` against `nn.Linear`, by rows.

Claim: with 2 to 4 rows (one text with guidance has 2) a step's products take at most 0.75 of the time of `nn.Linear`,
and never more than 1.1 of it. Shapes are those of SmolLM2-135M, random weights; each matrix is read once a step, as in
decoding, so that caches hold none of them. All arms run in this process, in turn; the best of five.

    python benchmarks/small_batch.py --json small_batch.json
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _progress import say
from torch import Tensor, nn

from steer.models.small_batch import SmallBatchLinear

HIDDEN, INNER, KEYS, VOCABULARY, LAYERS = 576, 1536, 192, 49_152, 30
SHAPES = [(HIDDEN, HIDDEN), (HIDDEN, KEYS), (HIDDEN, KEYS), (HIDDEN, HIDDEN)]
SHAPES += [(HIDDEN, INNER), (HIDDEN, INNER), (INNER, HIDDEN)]
CLAIMED = {2: 0.75, 4: 0.75}
NEVER_ABOVE = 1.1


def seconds(step: Callable[[], object]) -> float:
    """The best of five, after one to warm up."""
    step()
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        step()
        best = min(best, time.perf_counter() - begin)
    return best


def main() -> int:
    """Measure, print, and fail where a claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    say(f"making {LAYERS} layers")
    plain = [nn.Linear(*shape, bias=False) for shape in [*SHAPES * LAYERS, (HIDDEN, VOCABULARY)]]
    quick = [SmallBatchLinear(linear) for linear in plain]
    rows, failed = [], False
    with torch.inference_mode():
        for count in (1, 2, 4, 8, 16, 32):
            inputs = {width: torch.randn(count, width) for width in (HIDDEN, INNER)}

            def step(layers: list, inputs: dict[int, Tensor] = inputs) -> list[Tensor]:
                return [layer(inputs[layer.in_features]) for layer in layers]

            say(f"{count} rows")
            old, new = seconds(lambda: step(plain)), seconds(lambda: step(quick))
            ratio, limit = new / old, CLAIMED.get(count, NEVER_ABOVE)
            rows.append({"rows": count, "linear_ms": 1e3 * old, "small_batch_ms": 1e3 * new, "ratio": ratio})
            verdict = "holds" if ratio <= limit else "FAILS"
            failed |= ratio > limit
            told = f"{count:3} rows: {1e3 * old:6.1f} ms, {1e3 * new:6.1f} ms, ratio {ratio:.2f}"
            print(f"{told} (<= {limit}: {verdict})")
    if options.json:
        options.json.write_text(json.dumps({"threads": options.threads, "rows": rows}, indent=2) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
