"""The layouts: how contexts, latents and spans stand in a sequence, and every question that follows from it.

- `interleaved` (ours): `[context] z1 x1 z2 x2 ...`. Written spans keep their latents; a learned null latent stands
  where nothing steers, under the same adapter.
- `minihf` (BigVAE): `[context][z][span + next span]`. A span's latent gives way to the next one's; where nothing steers
  the bare base writes, without a latent. A decoder reconstructs spans from their latents alone (stage 1).

No other module compares layouts by name: code asks for the property that it needs.
"""

from dataclasses import dataclass
from typing import Any, Literal, final

from steer.models.adapters import DECODER, ENCODER, ROUTER
from steer.models.tokens import text_begin

LayoutName = Literal["interleaved", "minihf"]


@final
@dataclass(frozen=True)
class Layout:
    """What follows from a layout.

    Attributes:
        name: as configurations and recipes write it.
        roles: names of the adapters.
        unguided_role: the adapter that writes without a latent; None for the bare base.
        has_null: whether there is a learned null latent.
        keeps_latents: whether written spans keep their latents in the sequence.
        begins_with_end: whether the end token, which parts stories in training, stands for an empty context.
        fixed_soft_tokens: soft tokens per latent, where the layout allows no other number.
        mirrored_start: whether soft tokens start as exactly the encoder's map transposed, as in MiniHF.
    """

    name: LayoutName
    roles: tuple[str, ...]
    unguided_role: str | None
    has_null: bool
    keeps_latents: bool
    begins_with_end: bool
    fixed_soft_tokens: int | None = None
    mirrored_start: bool = False

    @property
    def has_decoder(self) -> bool:
        """Whether there is a stage-1 decoder, which is trained before the router."""
        return DECODER in self.roles

    def begin(self, tokenizer: Any) -> int:
        """The token id that stands for an empty context.

        Raises:
            TextError: the tokenizer has no such token.
        """
        end = tokenizer.eos_token_id
        return int(end) if self.begins_with_end and end is not None else text_begin(tokenizer)

    def span_positions(self, soft_tokens: int, span_tokens: int) -> tuple[int, int]:
        """Positions that the latents of all spans take once, and positions that each span takes."""
        return (0, soft_tokens + span_tokens) if self.keeps_latents else (soft_tokens, span_tokens)


INTERLEAVED = Layout("interleaved", (ENCODER, ROUTER), ROUTER, has_null=True, keeps_latents=True, begins_with_end=True)
MINIHF = Layout(
    "minihf",
    (ENCODER, ROUTER, DECODER),
    None,
    has_null=False,
    keeps_latents=False,
    begins_with_end=False,
    fixed_soft_tokens=1,
    mirrored_start=True,
)
LAYOUTS: dict[LayoutName, Layout] = {layout.name: layout for layout in (INTERLEAVED, MINIHF)}
