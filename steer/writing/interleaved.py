"""Writing in the `interleaved` layout, where spans keep the latents that they were written from."""

import torch
from torch import Tensor

from steer.latents.mixing import classifier_free_guidance
from steer.models.adapters import ROUTER
from steer.noise import RowNoise
from steer.writing.stream import Arm
from steer.writing.writer import Writer


class InterleavedWriter(Writer):
    """The `interleaved` layout: `[context] z1 x1 z2 x2 ...`.

    Written spans keep their latents, so nothing is ever computed twice.

    With classifier-free guidance the cache holds the conditional rows first and the null rows behind them, and each
    token costs one pass over both.
    """

    def _open(self, spans: int) -> None:
        self.soft = self.model.latent_config.soft_tokens
        width = self.soft + self.model.span_tokens
        self.arm = Arm(self.model, ROUTER, self.contexts, (spans + 1) * width + 1, copies=2 if self.with_null else 1)
        # The last committed token, not yet in the cache: it rides with the next chunk.
        self._pending: Tensor | None = None

    def _write_draft(self) -> Tensor:
        """Write S tokens with the null latent in the conditional rows, encode them, and rewind the cache."""
        length = self.arm.cache.length
        tokens, _ = self._span(None, None, self.draft_noise)
        self.arm.cache.rewind(length)
        return self._encode(tokens)

    @torch.inference_mode()
    def _hidden(self) -> Tensor:
        """One pass of the conditional rows over the null latent, and the cache is rewound."""
        length, chunk = self.arm.cache.length, self.model.soft(None, self.rows)
        if self._pending is not None:
            chunk = torch.cat([self.arm.embed(self._pending), chunk], dim=1)
        state = self.arm.hidden(chunk)
        self.arm.cache.rewind(length)
        return state

    def _generate(
        self, z: Tensor | None, scale: Tensor | float | None, steered: Tensor | None = None
    ) -> list[list[int]]:
        if self.with_null:
            # The null arm's cache must grow with the other's, so scale 1 runs both; unguided rows are not extrapolated.
            scale = 1.0 if scale is None or z is None else scale
            if steered is not None:
                scale = torch.where(steered, torch.as_tensor(scale, dtype=torch.float32), 1.0).to(self.model.device)
        tokens, self._pending = self._span(z, scale, self.noise, steered)
        return tokens

    @torch.inference_mode()
    def _span(
        self, z: Tensor | None, scale: Tensor | float | None, noise: RowNoise, steered: Tensor | None = None
    ) -> tuple[list[list[int]], Tensor]:
        both = scale is not None and self.with_null
        soft = self.model.soft(z, self.rows)
        if steered is not None:
            soft = torch.where(steered.to(soft.device)[:, None, None], soft, self.model.soft(None, self.rows))
        if both:
            soft = torch.cat([soft, self.model.soft(None, self.rows)])
        chunk = soft
        if self._pending is not None:
            last = self.arm.embed(self._pending)
            chunk = torch.cat([last.repeat(2, 1, 1) if both else last, soft], dim=1)
        tokens: list[Tensor] = []
        for _ in range(self.model.span_tokens):
            logits = self.arm.forward(chunk)[:, -1].float()
            if both:
                assert scale is not None
                logits = classifier_free_guidance(logits[self.rows :], logits[: self.rows], scale)
            ids = self._next(logits, noise, tokens)
            tokens.append(ids)
            chunk = self.arm.embed(ids)
            if both:
                chunk = chunk.repeat(2, 1, 1)
        return torch.stack(tokens, dim=1).tolist(), tokens[-1]
