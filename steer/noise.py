"""Where randomness comes from: seeds derived from names, and noise that a row's own seed and step decide.

`RowNoise` gives each row noise that depends on its own seed and step only, however the batch is packed.
`steer.writing.sampling` turns Gumbel noise into tokens.
"""

import hashlib
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from steer.errors import SamplingError

# Uniforms are kept inside (0, 1) by these, so that the two logarithms of a Gumbel draw stay finite.
_LOWEST, _HIGHEST = torch.finfo(torch.float32).tiny, 1 - 2**-24


@final
@dataclass(frozen=True)
class RowNoise:
    """Counter-based noise for a batch: a row's noise at a step is a function of (its seed, the step) and nothing else.

    There is no state to carry or save: any step can be drawn at any time, for any rows, in any packing. It is Philox
    (Salmon et al., 2011) keyed by the seed, with the step in its counter; the numbers are made on the CPU and are the
    same on every device.

    Attributes:
        seeds: one per row, each in [0, 2**64); see `derive_seed`.

    Raises:
        SamplingError: at construction, for a seed out of range.
    """

    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        for seed in self.seeds:
            if not 0 <= seed < 2**64:
                raise SamplingError(f"a seed lies in [0, 2**64); got {seed!r}; derive_seed(...) makes one")

    def select(self, rows: Sequence[int]) -> "RowNoise":
        """The noise of some of the rows, in that order."""
        return RowNoise(tuple(self.seeds[row] for row in rows))

    def gumbel(self, step: int | Sequence[int], vocab_size: int, *, device: torch.device | str = "cpu") -> Tensor:
        """Standard Gumbel noise, float32 `[B, vocab_size]`, for one step or for one step per row.

        Raises:
            SamplingError: if a step is negative, or there is not one per row.
        """
        return _gumbel_(self._draw(step, vocab_size, stream=0).to(device))

    def normal(self, step: int | Sequence[int], width: int, *, device: torch.device | str = "cpu") -> Tensor:
        """Standard normal noise, float32 `[B, width]`, independent of `gumbel` at the same step.

        Raises:
            SamplingError: if a step is negative, or there is not one per row.
        """
        return self._draw(step, width, stream=1).to(device)

    def _draw(self, step: int | Sequence[int], width: int, *, stream: int) -> Tensor:
        steps = [step] * len(self.seeds) if isinstance(step, int) else list(step)
        if len(steps) != len(self.seeds) or any(at < 0 for at in steps):
            raise SamplingError(f"expected a step of at least 0, or {len(self.seeds)}, one per row; got {step!r}")
        out = np.empty((len(self.seeds), width), dtype=np.float32)
        for row, seed, at in zip(out, self.seeds, steps, strict=True):
            # 2**64 blocks of numbers to a step: neighbouring steps cannot overlap.
            generator = np.random.Generator(np.random.Philox(key=seed, counter=(stream << 128) | (at << 64)))
            if stream == 0:
                generator.random(out=row, dtype=np.float32)
            else:
                generator.standard_normal(out=row, dtype=np.float32)
        return torch.from_numpy(out)


def derive_seed(*parts: int | str) -> int:
    """A seed in [0, 2**63) from any parts, the same in every process (BLAKE2b of the parts, their types and lengths).

    It fits torch, numpy and a signed 64-bit column. Order and boundaries count: ("ab", "c") differs from ("a", "bc").

    Raises:
        SamplingError: for a part that is neither an int nor a str.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | str):
            raise SamplingError(f"a seed is derived from ints and strings; got {part!r} of {type(part).__name__}")
        data = str(part).encode("utf-8", "surrogatepass")
        digest.update(f"{'i' if isinstance(part, int) else 's'}{len(data)}:".encode() + data)
    return int.from_bytes(digest.digest(), "big") >> 1


def _gumbel_(uniform: Tensor) -> Tensor:
    """Turn uniforms in [0, 1) into Gumbel noise in place."""
    return uniform.clamp_(_LOWEST, _HIGHEST).log_().neg_().log_().neg_()


def child_key(parent: int, index: int) -> int:
    """Key of a span, from which its seeds derive: a function of the key before it and the index of the child."""
    return derive_seed(parent, "child", index)


def row_seeds(seeds: Sequence[int] | int, rows: int) -> list[int]:
    """A seed for each of so many rows: those that are given, or derived from one.

    Raises:
        SamplingError: seeds are no integers, or out of range.
    """
    if isinstance(seeds, int | np.integer):
        return [derive_seed(int(seeds), row) for row in range(rows)]
    try:
        found = [operator.index(seed) for seed in seeds]
    except TypeError:
        raise SamplingError(f"seeds are an integer, or one for each row; got {seeds!r:.80}") from None
    if wrong := [seed for seed in found if not 0 <= seed < 2**64]:
        raise SamplingError(f"a seed lies in [0, 2**64); got {wrong[0]}; derive_seed(...) makes one")
    return found
