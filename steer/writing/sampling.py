"""Next-token sampling: plain functions on logits `[B, V]`, with the randomness as an argument.

A token is drawn by the Gumbel-max trick: `argmax(logits / temperature + g)` with standard Gumbel noise `g` is an exact
sample of `softmax(logits / temperature)`. So a draw is a function of logits and noise, and who owns the noise decides
what is reproducible, see `steer.noise`.

Filters (`filter_*`, logits -> logits) set what may not be drawn to minus infinity; switched off they return their
input. `sample` (logits and noise -> ids `[B]`) applies the temperature, then top-k, top-p and min-p.
B rows, V vocabulary.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from steer.errors import SamplingError
from steer.text import is_number

# Logits divided by less than this overflow or leave one token: that is greedy decoding, which has its own spelling, 0.
_MIN_TEMPERATURE = 1e-4


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is drawn.

    Attributes:
        temperature: 0 is greedy; else at least 1e-4.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the smallest set of tokens whose probabilities reach this; 1 keeps all.
        min_p: keep tokens at least this times as likely as the likeliest; 0 keeps all.
        repetition_penalty: above 1 makes tokens already written less likely; 1 does nothing.

    Raises:
        SamplingError: at construction, for a value out of range.
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)
        _check_top_k(self.top_k)
        _check_top_p(self.top_p)
        _check_min_p(self.min_p)
        _check_penalty(self.repetition_penalty)


def filter_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Keep the `top_k` likeliest tokens of each row, and ties with the last of them; 0 keeps all (Fan et al., 2018).

    Raises:
        SamplingError: if `top_k` is not an int of at least 0.
    """
    _check_top_k(top_k)
    if top_k == 0 or top_k >= logits.shape[-1]:
        return logits
    return _keep_from(logits, logits.topk(top_k, dim=-1).values[..., -1:])


def filter_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens whose probabilities reach `top_p` (Holtzman et al., 2019).

    At least one token is kept, and ties with the last one kept; 1 keeps all.

    Raises:
        SamplingError: if `top_p` is outside (0, 1].
    """
    _check_top_p(top_p)
    if top_p == 1:
        return logits
    ordered = _descending(logits)
    reached = ordered.softmax(dim=-1).cumsum(dim=-1)
    # A token is needed when what comes before it does not reach the mass yet.
    last = (reached < top_p).sum(dim=-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
    return _keep_from(logits, ordered.gather(-1, last))


def filter_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Keep tokens at least `min_p` times as likely as the likeliest one (Nguyen et al., 2024); 0 keeps all.

    Raises:
        SamplingError: if `min_p` is outside [0, 1].
    """
    _check_min_p(min_p)
    if min_p == 0:
        return logits
    return _keep_from(logits, logits.amax(dim=-1, keepdim=True) + math.log(min_p))


def penalize_repetition(logits: Tensor, previous: Tensor, penalty: float, *, mask: Tensor | None = None) -> Tensor:
    """Divide the positive logits of tokens already written by a penalty, multiply others (CTRL, Keskar et al., 2019).

    Args:
        logits: float `[B, V]`.
        previous: int64 `[B, L]`, the tokens written so far.
        penalty: above 1 discourages, below 1 encourages, 1 does nothing.
        mask: bool `[B, L]`, False where `previous` is padding.

    Raises:
        SamplingError: if the penalty is not above 0 and finite.
    """
    _check_penalty(penalty)
    if penalty == 1:
        return logits
    batch, vocab_size = logits.shape
    seen = torch.zeros(batch, vocab_size + 1, dtype=torch.bool, device=logits.device)
    # Padding is sent to one more column, which is cut off again.
    ids = previous if mask is None else previous.masked_fill(~mask.bool(), vocab_size)
    seen = seen.scatter_(1, ids, True)[:, :vocab_size]
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def sample(
    logits: Tensor,
    *,
    noise: Tensor | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Tensor:
    """Draw one token per row.

    Args:
        logits: float `[B, V]`.
        noise: standard Gumbel noise, float32 `[B, V]`, such as `RowNoise`'s; temperature 0 needs none.
        temperature: divides the logits; 0 takes the likeliest token (the first one of equals).
        top_k: see `filter_top_k`.
        top_p: see `filter_top_p`.
        min_p: see `filter_min_p`.

    Returns:
        Token ids, int64 `[B]`.

    Raises:
        SamplingError: for logits of a wrong shape, with NaN or plus infinity, or that leave no token; for settings out
            of range; for missing or misshapen noise.
    """
    if logits.ndim != 2 or logits.shape[1] == 0 or not logits.is_floating_point():
        raise SamplingError(
            f"logits are a float [B, V]; got {list(logits.shape)} of {logits.dtype}; for the last position pass "
            "logits[:, -1]"
        )
    _check_temperature(temperature)
    logits = logits.float()
    if temperature == 0:
        return _argmax(logits)
    if noise is None:
        raise SamplingError(
            f"temperature {temperature} needs noise: RowNoise(seeds).gumbel(...), or temperature=0 for greedy"
        )
    if noise.shape != logits.shape:
        raise SamplingError(f"noise has the logits' shape {list(logits.shape)}; got {list(noise.shape)}")
    scores = logits / temperature
    if top_k:
        scores = filter_top_k(scores, top_k)
    if top_p != 1:
        scores = filter_top_p(scores, top_p)
    if min_p:
        scores = filter_min_p(scores, min_p)
    # In place: the division above made a tensor of our own.
    return _argmax(scores.add_(noise))


def sample_with(
    config: SamplingConfig,
    logits: Tensor,
    *,
    noise: Tensor | None = None,
    previous: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """`sample` with the settings of a config, after its repetition penalty on `previous` (int64 `[B, L]`), if given.

    Raises:
        SamplingError: as `sample`.
    """
    if previous is not None and config.repetition_penalty != 1:
        logits = penalize_repetition(logits, previous, config.repetition_penalty, mask=mask)
    return sample(
        logits,
        noise=noise,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        min_p=config.min_p,
    )


def _descending(logits: Tensor) -> Tensor:
    """Each row's logits from the largest down, float32. On the CPU numpy sorts them, some thirty times faster."""
    values = logits.detach().float()
    if values.device.type != "cpu":
        return values.sort(dim=-1, descending=True).values
    return torch.from_numpy(np.sort(values.numpy(), axis=-1)).flip(-1)


def _keep_from(logits: Tensor, threshold: Tensor) -> Tensor:
    return logits.masked_fill(logits < threshold, -math.inf)


def _argmax(scores: Tensor) -> Tensor:
    """Index of the largest score per row. `max` lets NaN win, so one look at the winners finds every bad row."""
    best, ids = scores.max(dim=-1)
    if not bool(torch.isfinite(best).all()):
        row = int((~torch.isfinite(best)).nonzero()[0])
        value = best[row].item()
        if value == -math.inf:
            raise SamplingError(f"row {row} has no token left: all its logits are minus infinity; loosen the filters")
        raise SamplingError(
            f"row {row} holds {value} among its logits; expected finite ones (minus infinity forbids a token); check "
            "the model's dtype and inputs"
        )
    return ids


def _check_temperature(temperature: float) -> None:
    if not is_number(temperature) or not (temperature == 0 or _MIN_TEMPERATURE <= temperature < math.inf):
        raise SamplingError(f"temperature is 0 (greedy) or finite and at least {_MIN_TEMPERATURE}; got {temperature!r}")


def _check_top_k(top_k: int) -> None:
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 0:
        raise SamplingError(f"top_k is an int of at least 0 (0 keeps all tokens); got {top_k!r}")


def _check_top_p(top_p: float) -> None:
    if not is_number(top_p) or not 0 < top_p <= 1:
        raise SamplingError(f"top_p lies in (0, 1] (1 keeps all tokens); got {top_p!r}")


def _check_min_p(min_p: float) -> None:
    if not is_number(min_p) or not 0 <= min_p <= 1:
        raise SamplingError(f"min_p lies in [0, 1] (0 keeps all tokens); got {min_p!r}")


def _check_penalty(penalty: float) -> None:
    if not is_number(penalty) or not 0 < penalty < math.inf:
        raise SamplingError(f"repetition_penalty is finite and above 0 (1 does nothing); got {penalty!r}")
