"""A latent model with untrained adapters, on any base: where training starts."""

from pathlib import Path
from typing import Any

import torch

from steer.errors import UnsupportedBase
from steer.models.adapters import add_adapters
from steer.models.base import additive_mask, backbone, check_options, load_base
from steer.models.config import BaseIdentity, LatentConfig
from steer.models.latent_model import LatentModel
from steer.models.layouts import LAYOUTS, LayoutName
from steer.models.state_encoder import StateEncoder, StateEncoderConfig

SENTENCE = "Once upon a time a fox shared his bread."


def fresh_model(
    base: str | Path, *, rank: int = 64, alpha: int = 64, tied: bool = True, seed: int = 0, **options: Any
) -> LatentModel:
    """Put an encoder, a router and heads on a base, all untrained.

    Encodings are arbitrary (with a state encoder the same until `steer.training.state_encoder` has fitted it), and the
    router writes like the base after noise.

    Args:
        base: folder or hub id of a causal LM.
        rank, alpha: of LoRA, on all linear layers but the output head.
        tied: whether soft tokens start as the encoder's map turned round, see `LatentHead.reset`; they always do in
            the layout `minihf`, exactly.
        seed: of the start values.
        **options: see `new_config` and `steer.models.base.load_base`.

    Raises:
        ArgumentError: there is no such option, dtype or device.
        UnsupportedBase: see `check_base` and `check_tokenizer`.
        ModelNotFound: see `steer.models.base.load_base`.
    """
    check_options(options, new_config, load_base)
    settings = {name: options.pop(name) for name in new_config.__kwdefaults__ or () if name in options}
    plain, tokenizer = load_base(base, **options)
    check_base(plain, str(base))
    check_tokenizer(plain, tokenizer, str(base))
    config = new_config(BaseIdentity.of(plain, str(base)), **settings)
    if config.state_encoder is not None and config.state_encoder.begin is None:
        begun = config.state_encoder.model_copy(update={"begin": LAYOUTS[config.layout].begin(tokenizer)})
        config = config.model_copy(update={"state_encoder": begun})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = add_latents(plain, tokenizer, config, rank=rank, alpha=alpha)
        embedding: Any = plain.get_input_embeddings()
        model.head.reset(float(embedding.weight.float().pow(2).mean().sqrt()), tied=tied)
        if model.layout.mirrored_start:
            model.head.w_d.weight.data.copy_(model.head.w_e.weight.T)
    model.latent_config = config.model_copy(update={"encoder_id": f"{config.name}:untrained-{seed}"})
    model.head.to(plain.device)
    if model.state_encoder is not None:
        model.state_encoder.to(plain.device)
    return model.eval()


def new_config(
    base: BaseIdentity,
    *,
    name: str = "latent-model",
    layout: LayoutName = "interleaved",
    span_tokens: int = 32,
    z_dim: int = 256,
    soft_tokens: int = 4,
    max_context: int = 320,
    state_encoder: StateEncoderConfig | None = None,
) -> LatentConfig:
    """The settings of a model that is yet to be trained.

    Args:
        base: what it stands on.
        name: of the new model.
        layout: see `LatentConfig`. `minihf` has a decoder besides, one soft token, no null latent, and MiniHF's start
            values of the heads: the way from a latent to its soft token is the encoder's, turned round.
        span_tokens, z_dim, soft_tokens, max_context, state_encoder: see `LatentConfig`.
    """
    return LatentConfig(
        name=name,
        layout=layout,
        span_tokens=span_tokens,
        z_dim=z_dim,
        soft_tokens=LAYOUTS[layout].fixed_soft_tokens or soft_tokens,
        max_context=max_context,
        state_encoder=state_encoder,
        base=base,
    )


def add_latents(
    base: Any, tokenizer: Any, config: LatentConfig, *, rank: int, alpha: int, **options: Any
) -> LatentModel:
    """Put adapters and heads on a loaded base; the heads' values are PyTorch's.

    Args:
        base: a `transformers` causal LM, frozen.
        tokenizer: of the base.
        config: layout and widths.
        rank, alpha: of LoRA.
        **options: of PEFT, see `steer.models.adapters.add_adapters`.
    """
    peft = add_adapters(base, config.roles, rank, alpha, **options)
    states = config.state_encoder
    encoder = None if states is None else StateEncoder(states, config.base.hidden_size, config.base.vocab_size)
    return LatentModel(peft, config.new_head(), config, tokenizer, state_encoder=encoder)


def check_tokenizer(base: Any, tokenizer: Any, name: str) -> None:
    """Look whether a tokenizer fits its base and has what stories need.

    Raises:
        UnsupportedBase: it makes nothing of a sentence, has no end token, or more tokens than the base has embeddings.
    """
    ids = tokenizer(SENTENCE, add_special_tokens=False)["input_ids"]
    if not tokenizer.decode(ids, skip_special_tokens=True).strip():
        raise UnsupportedBase(
            f"the tokenizer of {name} makes nothing of {SENTENCE!r}; is its tokenizer.json or tokenizer.model missing? "
            "Copy it there, beside tokenizer_config.json"
        )
    if tokenizer.eos_token_id is None:
        raise UnsupportedBase(
            f"the tokenizer of {name} has no end token, which ends stories; set `eos_token` in its "
            "tokenizer_config.json"
        )
    rows = base.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise UnsupportedBase(
            f"the tokenizer of {name} has {len(tokenizer)} tokens, the base embeddings for {rows}; is it the tokenizer "
            "of another model?"
        )


@torch.no_grad()
def check_base(base: Any, name: str) -> None:
    """Look whether a base can serve: its attention opens to both sides, and it takes embeddings.

    Raises:
        UnsupportedBase: it cannot; says why. GPT-Neo's attention is causal whatever the mask; BLOOM takes no such mask.
    """
    ids = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4]], device=base.device)
    table: Any = base.get_input_embeddings()
    mask = additive_mask(torch.ones_like(ids), causal=False, dtype=table.weight.dtype)
    try:
        hidden = backbone(base)(inputs_embeds=table(ids), attention_mask=mask, use_cache=False).last_hidden_state
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        kind = base.config.model_type
        raise UnsupportedBase(
            f"{name} ({kind}) takes no four-dimensional mask or no embeddings ({error}); Llama, Mistral, Qwen, Gemma, "
            "GPT-2 and GPT-NeoX models do"
        ) from error
    if torch.equal(hidden[0, 0], hidden[1, 0]):
        raise UnsupportedBase(
            f"the attention of {name} ({base.config.model_type}) stays causal whatever the mask, so it cannot encode; "
            "Llama, Mistral, Qwen, Gemma, GPT-2 and GPT-NeoX models can"
        )
