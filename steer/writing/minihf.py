"""Writing in BigVAE's layout, where each span has one latent before it and plain text before that."""

import torch
from torch import Tensor

from steer.latents.mixing import classifier_free_guidance
from steer.models.adapters import ROUTER
from steer.writing.stream import Arm
from steer.writing.writer import Writer


class MiniHFWriter(Writer):
    """BigVAE's layout: `[context][z][span + next span]`. The null arm of guidance is the bare base without `z`.

    MiniHF computes the whole context again for every span. Here the cache of the visible tokens is kept: after a span
    the latent's slot is cut off again and the span's tokens are computed once behind the context, which gives the same
    numbers.
    """

    def _open(self, spans: int) -> None:
        capacity = (spans + 1) * self.model.span_tokens + 2
        self.arm = Arm(self.model, ROUTER, self.contexts, capacity)
        self.null = Arm(self.model, None, self.contexts, capacity)
        # The last visible token is held back, so that every span starts with a chunk whose logits predict its first
        # token.
        self._held = torch.tensor([c[-1] for c in self.contexts], device=self.model.device)[:, None]
        self._back()

    def _back(self) -> None:
        for arm in (self.arm, self.null):
            arm.cache.rewind(arm.cache.length - 1)

    @torch.inference_mode()
    def _hidden(self) -> Tensor:
        """One pass of the bare base over the last visible token, and the cache is rewound."""
        length = self.null.cache.length
        state = self.null.hidden(self.null.embed(self._held))
        self.null.cache.rewind(length)
        return state

    @torch.inference_mode()
    def _write_draft(self) -> Tensor:
        """Write S tokens with the bare base (this layout has no null latent), encode them, and rewind the cache."""
        length = self.null.cache.length
        chunk, tokens = self.null.embed(self._held), []
        for _ in range(self.model.span_tokens):
            ids = self._next(self.null.forward(chunk)[:, -1].float(), self.draft_noise, tokens)
            tokens.append(ids)
            chunk = self.null.embed(ids)
        self.null.cache.rewind(length)
        return self._encode(torch.stack(tokens, dim=1).tolist())

    @torch.inference_mode()
    def _generate(
        self, z: Tensor | None, scale: Tensor | float | None, steered: Tensor | None = None
    ) -> list[list[int]]:
        if z is not None and steered is not None:
            # Scale 0 is the null arm, bit for bit.
            per_row = torch.as_tensor(1.0 if scale is None else scale, dtype=torch.float32, device=self.model.device)
            scale = torch.where(steered.to(self.model.device), per_row, 0.0)
        guided = z is not None and scale is not None and (self.with_null or steered is not None)
        arms = [self.null] if z is None else [self.arm, self.null] if guided else [self.arm]
        starts = [arm.cache.length for arm in (self.arm, self.null)]
        held = self.arm.embed(self._held)
        chunks = [held if arm is self.null else torch.cat([held, self.model.soft(z)], dim=1) for arm in arms]
        tokens: list[Tensor] = []
        for _ in range(self.model.span_tokens):
            logits = [arm.forward(chunk)[:, -1].float() for arm, chunk in zip(arms, chunks, strict=True)]
            mixed = classifier_free_guidance(logits[1], logits[0], scale) if guided and scale is not None else logits[0]
            ids = self._next(mixed, self.noise, tokens)
            tokens.append(ids)
            chunks = [self.arm.embed(ids)] * len(arms)
        span = torch.stack(tokens, dim=1)
        for arm, start in zip((self.arm, self.null), starts, strict=True):
            arm.cache.rewind(start)
            arm.forward(arm.embed(torch.cat([self._held, span[:, :-1]], dim=1)))
        self._held = span[:, -1:]
        return span.tolist()
