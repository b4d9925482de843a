"""The latent model: one frozen base, adapters for its roles, and the heads between text and latents."""

import contextlib
import copy
import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
import torch
from huggingface_hub import ModelHubMixin
from peft import PeftModel
from torch import Tensor, nn

from steer.heads.bottleneck import LatentHead
from steer.heads.prior import PriorHead
from steer.heads.reach import ReachHead
from steer.models import checkpoint
from steer.models.adapters import ENCODER, ROUTER, fused_copy, use_adapter
from steer.models.base import additive_mask, backbone, check_options, load_base, quietly
from steer.models.config import LatentConfig
from steer.models.encoding import Ids, encode_rows, encode_texts
from steer.models.layouts import LAYOUTS, Layout
from steer.models.state_encoder import StateEncoder
from steer.models.tokens import colons, continuation_tokens, control_tokens
from steer.text import check_ids, check_text

if TYPE_CHECKING:
    from steer import generate
    from steer.latents.pull import Floats, Pull

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
FUSE_LIMIT = 3 * 2**30  # bytes of base weights up to which fused copies of the adapters are kept


class LatentModel(nn.Module, ModelHubMixin, library_name="steer", tags=["steer", "latent"]):
    """Encodes spans of text to latents and writes spans from latents in context.

    Args:
        peft: the base with its adapters (`encoder`, `router`, for MiniHF folders also `decoder`).
        head: pooling and soft tokens.
        latent_config: settings; its `layout` decides how contexts and latents are laid out.
        tokenizer: of the base.
        fuse: keep copies of the base with an adapter merged in, which writes two to three times faster than adapters
            applied on the fly. None decides by the base's size; quantised bases are never fused.
        reach: tells how near a terminal is, see `steer.heads.reach`; None where none was trained.
        prior: draws the next latent, see `steer.heads.prior`; None where none was trained.
        state_encoder: makes latents from states of the frozen base; None where the adapter `encoder` does.
    """

    def __init__(
        self,
        peft: PeftModel,
        head: LatentHead,
        latent_config: LatentConfig,
        tokenizer: Any,
        *,
        fuse: bool | None = None,
        reach: ReachHead | None = None,
        prior: PriorHead | None = None,
        state_encoder: StateEncoder | None = None,
    ) -> None:
        super().__init__()
        self.peft: Any = peft
        self.head = head
        self.reach = reach
        self.prior = prior
        self.state_encoder = state_encoder
        self.latent_config = latent_config
        self.tokenizer = tokenizer
        size = sum(p.numel() * p.element_size() for n, p in peft.named_parameters() if "lora_" not in n)
        quantised = getattr(peft.get_base_model(), "is_quantized", False)
        self.fuse = not quantised and (size <= FUSE_LIMIT if fuse is None else fuse)
        self._cached: dict[Hashable, Any] = {}
        self._lock = threading.RLock()
        # The mixin would save the constructor's plain arguments as `config.json`; `steer_config.json` holds all there
        # is to know.
        self._hub_mixin_config = None

    def __repr__(self) -> str:
        config = self.latent_config
        return (
            f"LatentModel({config.name!r}, {config.layout}, spans of {config.span_tokens} tokens, latents of "
            f"{config.z_dim}, {str(self.dtype).removeprefix('torch.')} on {self.device})"
        )

    # -- loading and saving ------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        **options: Any,
    ) -> Self:
        """Load a model folder, the packaged model by its name, or a hub id.

        This stands in for the mixin's method, which asks the hub for a `config.json` first, even of a folder's or the
        packaged model's name.

        Args:
            pretrained_model_name_or_path: a folder as written by `save_pretrained`, a name, or a hub id.
            revision, cache_dir, force_download, local_files_only, token: of the download.
            **options: `base`, `verify`, `fuse`, `dtype`, `device`, `quantization_config`; see
                `steer.models.checkpoint.load`.

        Raises:
            ArgumentError: there is no such option, dtype or device.
            CheckpointError: a file is missing, truncated, tampered with, or of wrong shapes.
            BaseMismatch: the base is not the one that was trained on.
            ModelNotFound: the model or its base cannot be found.
        """
        check_options(options, checkpoint.load, load_base)
        with quietly():
            folder = checkpoint.fetch(
                str(pretrained_model_name_or_path),
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        return checkpoint.load(cls, folder, token=token, local_files_only=local_files_only, **options)

    @classmethod
    def from_minihf(cls, folder: str | Path, base: str | Path | None = None, **options: Any) -> Self:
        """Load a MiniHF/BigVAE checkpoint folder unchanged.

        Args:
            folder: holds `encoder/`, `decoder/`, `router/` (optional) and `vae.safetensors`.
            base: folder or hub id of the base; by default the one named in the adapters' configuration.
            **options: `dtype`, `device`, `quantization_config` and the like, see `steer.models.base.load_base`.

        Raises:
            ArgumentError: there is no such option, dtype or device.
            CheckpointError: parts are missing, truncated, or of wrong shapes.
            ModelNotFound: the base cannot be loaded.
        """
        from steer.models.minihf import load_minihf

        check_options(options, load_minihf, load_base)
        return load_minihf(cls, Path(folder), base, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        checkpoint.save(self, save_directory)

    # -- parts -------------------------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the base's weights are."""
        return next(self.peft.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the base's embeddings."""
        return self.peft.get_base_model().get_input_embeddings().weight.dtype

    @property
    def span_tokens(self) -> int:
        """S, tokens per span."""
        return self.latent_config.span_tokens

    @property
    def layout(self) -> Layout:
        """How contexts and latents are laid out, and what follows from it."""
        return LAYOUTS[self.latent_config.layout]

    def cached(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` makes of the weights, made once and kept under a name until `invalidate`."""
        with self._lock:
            if name not in self._cached:
                # Gradients may have to pass through it later, whoever asks for it first.
                with torch.inference_mode(False):
                    self._cached[name] = make()
            return self._cached[name]

    @contextlib.contextmanager
    def running(self, role: str | None) -> Iterator[Any]:
        """The `transformers` model under one role, for forward passes from any thread.

        Where `fuse` is on it is a copy of the base with the adapter merged in, which has no state. Elsewhere adapters
        are switched on the one base: one thread at a time, others wait.

        Args:
            role: name of an adapter; None for the bare base.

        Raises:
            LatentError: there is no such adapter.
        """
        if self.fuse and not self.training:
            yield self.fused(role)
            return
        with self._lock, use_adapter(self.peft, role) as base:
            yield base

    def fused(self, role: str | None) -> Any:
        """A plain model with one adapter merged in (None: the bare base), made once and kept.

        Weights that the adapter leaves alone are shared with the base.
        """
        return self.cached(("fused", role), lambda: fused_copy(self.peft, role))

    def invalidate(self) -> None:
        """Forget fused copies and all else that was derived, after the weights have changed."""
        self._cached.clear()

    def train(self, mode: bool = True) -> Self:
        """Training mode; what was derived from the weights is dropped, since the adapters are about to change."""
        if mode:
            self.invalidate()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # What `to`, `half`, `cuda` and the like are made of: copies derived from the weights are not submodules, so
        # they would stay behind.
        self.invalidate()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        # For copies: locks cannot be copied, and what was derived belongs to this model's weights.
        return {**self.__dict__, "_cached": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._lock = threading.RLock()

    @property
    def continuation_tokens(self) -> Tensor:
        """`[V]` bool: tokens that go on inside a word."""
        return self._token_table("continuation_tokens", continuation_tokens)

    @property
    def control_tokens(self) -> Tensor:
        """`[V]` bool: tokens that are marks and no text, but for the end token."""
        return self._token_table("control_tokens", control_tokens)

    @property
    def colons(self) -> Tensor:
        """`[V]` bool: tokens that begin with a colon, a space before it or not."""
        return self._token_table("colons", colons)

    def _token_table(self, name: str, make: Callable[[Any, int], Tensor]) -> Tensor:
        vocabulary = self.latent_config.base.vocab_size
        return self.cached(name, lambda: make(self.tokenizer, vocabulary).to(self.device))

    # -- encoding ----------------------------------------------------------------------------------------------------

    def encode_tokens(self, ids: Tensor, mask: Tensor, *, run: Callable[..., Tensor] | None = None) -> Tensor:
        """Posterior means of token rows; differentiable in training mode.

        The encoder reads the whole row at once (bidirectional), positions 0..T-1 as in MiniHF; a state encoder reads
        states of the frozen base, for which there is nothing to differentiate.

        Args:
            ids: `[B, T]` int64.
            mask: `[B, T]` int64, 1 for tokens that count; padding may stand on either side.
            run: makes the encoder adapter's pass instead: from its role, the mask and inputs to final states
                `[B, T, d]`.

        Returns:
            `[B, z_dim]` float32.
        """
        if self.state_encoder is not None:
            with self.running(None) as base:
                return self.state_encoder(base, ids, mask)
        # Not `is_causal=False`: several families (Falcon, GPT-J, StableLM, ...) ignore it without a word.
        full = additive_mask(mask, causal=False, dtype=self.dtype)
        if run is not None:
            return self.head.pool(run(ENCODER, full, input_ids=ids), mask)
        positions = torch.arange(ids.shape[1], device=ids.device)[None].expand_as(ids)
        inputs = {"input_ids": ids, "attention_mask": full, "position_ids": positions, "use_cache": False}
        with self.running(ENCODER) as base:
            hidden = backbone(base)(**inputs).last_hidden_state
        return self.head.pool(hidden, mask)

    def encode(self, texts: str | Sequence[str], *, batch_size: int = 64, long: str = "error") -> Tensor:
        """Latents of texts.

        Args:
            texts: one text or several; each at most one span long.
            batch_size: rows per forward pass.
            long: what to do with a text longer than a span: `error`, `truncate` (keep the first span), or `mean` (the
                mean of its spans' latents, rescaled to their mean norm).

        Returns:
            `[n, z_dim]` float32 on the CPU, in the order given.

        Raises:
            TextError: an empty text, one that is not valid Unicode, or one that is too long.
            ArgumentError: `long` is none of the three, or `batch_size` is below 1.
        """
        return encode_texts(self, texts, batch_size=batch_size, long=long)

    def encode_ids(self, rows: Sequence[Ids] | Tensor | np.ndarray, *, batch_size: int = 64) -> Tensor:
        """Latents `[n, z_dim]` (float32, CPU) of token rows of any lengths.

        Sorted by length inside so that little is padded.

        Raises:
            TextError: a row is empty, is no list of ids, or holds an id that the base has not.
            ArgumentError: `batch_size` is below 1.
            LatentError: the encoder gave NaN or infinity.
        """
        return encode_rows(self, rows, batch_size=batch_size)

    def to_ids(self, text: str) -> list[int]:
        """Token ids of visible text, without special tokens. An empty text has none.

        Raises:
            TextError: the text is not valid Unicode.
        """
        check_text(text, "context", allow_empty=True)
        return self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []

    def encoded_ids(self, text: str) -> list[int]:
        """Token ids of a text as `encode` reads it: behind the space that it has inside a story.

        Raises:
            TextError: the text is not valid Unicode.
        """
        spaced = self.latent_config.prefix_space and text and not text[0].isspace()
        return self.to_ids(" " + text if spaced else text)

    def to_text(self, ids: Ids) -> str:
        """Text of token ids, special tokens left out.

        Raises:
            TextError: no list of ids came, or an id that the base has not.
        """
        known = check_ids(ids, self.latent_config.base.vocab_size, "token ids")
        return self.tokenizer.decode(known, skip_special_tokens=True)

    # -- writing, a layer above: looked up when it is asked for, as `steer` itself looks up its names ---------------

    def write(self, context: "generate.Context", **options: Any) -> Any:
        """Write on from a context, pulled towards goals that the model never reads; see `steer.generate.write`.

        For example `model.write("Tom went to the lake.", toward="They found a gold coin.", spans=6, seed=1).text`.
        """
        return import_module("steer.generate").write(self, context, **options)

    def stream(self, context: "generate.Context", **options: Any) -> Iterator[Any]:
        """`write`, span by span as they are written; see `steer.generate.stream`."""
        return import_module("steer.generate").stream(self, context, **options)

    def pull(self, goal: "str | Floats", weights: Any = None, **options: Any) -> "Pull":
        """A pull towards a text or a latent, or with `avoid=True` away from it; see `steer.generate.pull`."""
        return import_module("steer.generate").pull(self, goal, weights, **options)

    # -- teacher-forced logits ---------------------------------------------------------------------------------------

    def role_logits(self, name: str | None, embeds: Tensor, mask: Tensor | None = None, *, keep: int = 0) -> Tensor:
        """Logits `[B, T, V]` of embeddings `[B, T, d]` under one role (None: the bare base), causally.

        Positions 0..T-1 over kept places of `mask`. With `keep` only the last places have logits, `[B, keep, V]`.
        """
        inputs: dict[str, Any] = {"inputs_embeds": embeds, "use_cache": False, "logits_to_keep": keep}
        if mask is not None:
            inputs |= {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp_min(0)}
        with self.running(name) as base:
            return base(**inputs).logits

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings `[B, T, d]` of token ids."""
        return self.peft.get_base_model().get_input_embeddings()(ids)

    def soft(self, z: Tensor | None, rows: int = 1) -> Tensor:
        """Soft tokens `[B, k, d]` in the base's dtype; None gives the null latent for `rows` rows."""
        soft = self.head.null_soft(rows) if z is None else self.head.soft(z.to(self.device))
        return soft.to(self.dtype)

    def router_logits(self, context: Tensor, z: Tensor | None, target: Tensor) -> Tensor:
        """Teacher-forced logits of a span in context.

        Args:
            context: `[B, C]` token ids, all visible (C may be 0).
            z: `[B, z_dim]`, or None for the null latent.
            target: `[B, T]` token ids.

        Returns:
            `[B, C + k + T, V]` logits of `[context][z][target]`; position `C + k - 1 + t` predicts target `t`.
        """
        embeds = torch.cat([self.embed(context), self.soft(z, context.shape[0]), self.embed(target)], dim=1)
        return self.role_logits(ROUTER, embeds)

    def bare_copy(self) -> Any:
        """A plain copy of the base without adapters, which shares no weights with it: for saving."""
        return copy.deepcopy(self.peft).unload()
