"""How likely the last span is to the base without any steering."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from steer.errors import RewardError
from steer.rewards.bare import bare_logits
from steer.rewards.options import Options
from steer.rewards.states import States
from steer.writing.context import text_begin

if TYPE_CHECKING:
    from steer.models.latent_model import LatentModel


def fluency(states: States, options: Options) -> Tensor:
    """Mean log-probability per token of the last span under the bare base: `[n]` float32, nats, at most 0.

    It is what `states.base_logprobs` gives.

    Raises:
        RewardError: that is not `[n]`.
    """
    logprobs = states.base_logprobs()
    if logprobs.shape != (len(states),):
        raise RewardError(f"base_logprobs must give [{len(states)}]; got {list(logprobs.shape)}")
    return logprobs


def mean_logprobs(model: "LatentModel", prefixes: Sequence[Sequence[int]], spans: Sequence[Sequence[int]]) -> Tensor:
    """Mean log-probability per token of spans behind prefixes under the bare base, from one full pass per row.

    A search engine that keeps the base's cache knows these numbers more cheaply; this is for those that do not.

    Args:
        model: whose base reads.
        prefixes: token ids before each span. An empty one counts as the beginning of a text.
        spans: token ids, at least one each.

    Returns:
        `[n]` float32 on the CPU, nats.
    """
    starts = [list(prefix) or [text_begin(model.tokenizer)] for prefix in prefixes]
    rows = [[*start, *span] for start, span in zip(starts, spans, strict=True)]
    means = torch.zeros(len(rows))
    for chosen, logits in bare_logits(model, rows):
        for r, i in enumerate(chosen):
            first, length = len(starts[i]), len(rows[i])
            logp = logits[r, first - 1 : length - 1].float().log_softmax(dim=-1)
            own = torch.as_tensor(rows[i][first:], device=logp.device)
            means[i] = logp.gather(1, own[:, None]).mean().cpu()
    return means
