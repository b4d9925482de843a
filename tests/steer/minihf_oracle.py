"""MiniHF's latent model restated in plain torch: an oracle that shares no code with `steer`, PEFT or transformers.

The formulas are those of JD-P/minihf's `vae_infer.py` (BigVAE) on a Llama or Mistral base. Nothing here is fast: every
greedy step runs the whole sequence again, adapters are merged into copies of the weights, and there is no cache, so
that each formula stands in one place. Shapes: B rows, T tokens, C context tokens, S target
tokens, d hidden size, V vocabulary, Z latent size.

    encode           ids [B, T], mask [B, T] -> z [B, Z]           "encoder" adapter, no causal mask
    decoder_logits   [z][context][target] -> [B, 1 + C + S, V]     "decoder" adapter, causal
    router_logits    [context][z][target] -> [B, C + 1 + S, V]     "router" adapter, causal
    base_logits      [ids] -> [B, T, V]                            no adapter, causal
    greedy           context ids + n most likely tokens
    rescaled_mix, annealed_blends                                  arithmetic on latents
    make_minihf_folder                                             a tiny random base and checkpoint to compare on

Positions are 0..T-1 over the whole sequence: masked slots and the slot of z take one each.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F

ROLES = ("encoder", "decoder", "router")
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
TARGETS = tuple(f"self_attn.{name}" for name in ATTENTION) + tuple(f"mlp.{name}" for name in MLP)


def read_lora_deltas(folder: Path) -> dict[str, Tensor]:
    """The weight changes of one PEFT folder: base weight name -> `alpha / r * B @ A`, float64.

    Reads `adapter_config.json` (`r`, `lora_alpha`) and `adapter_model.safetensors`, whose keys are
    `base_model.model.<module>.lora_A.weight` [r, in] and `.lora_B.weight` [out, r].
    """
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = {name: tensor.double() for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    scale = config["lora_alpha"] / config["r"]
    deltas: dict[str, Tensor] = {}
    for name, lora_a in tensors.items():
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            deltas[f"{module}.weight"] = scale * tensors[name.replace(".lora_A.", ".lora_B.")] @ lora_a
    if len(tensors) != 2 * len(deltas):
        raise ValueError(f"{folder}: {len(tensors)} tensors came, expected only pairs of lora_A and lora_B")
    return deltas


def rotate(x: Tensor, theta: float) -> Tensor:
    """Rotary positions 0..T-1 on x [B, heads, T, head_dim], halves convention (Su et al., 2021, as in Llama)."""
    length, head_dim = x.shape[-2:]
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    cos, sin = (torch.cat([wave, wave], dim=-1).to(x.dtype) for wave in (angles.cos(), angles.sin()))
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm over the last axis (Zhang and Sennrich, 2019)."""
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps) * weight


def additive_mask(mask: Tensor, *, causal: bool, dtype: torch.dtype) -> Tensor:
    """[B, 1, T, T]: 0 where query (row) may see key (column), the lowest finite number elsewhere.

    A finite number keeps rows that may see nothing (queries on padding) free of NaN; no other row ever reads them.
    """
    length = mask.shape[1]
    visible = mask.bool()[:, None, None, :].expand(-1, 1, length, length)
    if causal:
        visible = visible & torch.ones(length, length, dtype=torch.bool).tril()
    return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)


@dataclass(frozen=True)
class MiniHFOracle:
    """A MiniHF checkpoint on its base.

    `config` is the base's config.json. `weights` maps a role ("base", "encoder", "decoder", "router") to a full set of
    base weights with that role's adapter merged in. `head` holds `f` (score), `w_e` (to z) and `w_d` (from z).
    """

    config: dict[str, Any]
    weights: dict[str, dict[str, Tensor]]
    head: dict[str, Tensor]

    # What the folders say -------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, base_dir: Path, checkpoint_dir: Path, *, dtype: torch.dtype = torch.float32) -> "MiniHFOracle":
        """Read a base folder and a MiniHF folder.

        `dtype` float64 gives reference values free of rounding. The "default" adapter in the checkpoint's root is an
        artefact of MiniHF's saving code and is not read. Without a router folder (first training stage) the decoder
        adapter serves as the router, as in MiniHF's loader.
        """
        config = json.loads((base_dir / "config.json").read_text())
        base = {name: tensor.double() for name, tensor in load_file(base_dir / "model.safetensors").items()}
        if config.get("tie_word_embeddings", False):
            base["lm_head.weight"] = base["model.embed_tokens.weight"]
        weights = {"base": {name: tensor.to(dtype) for name, tensor in base.items()}}
        for role in ROLES:
            folder = checkpoint_dir / role
            if role == "router" and not folder.exists():
                folder = checkpoint_dir / "decoder"
            deltas = read_lora_deltas(folder)
            if unknown := sorted(set(deltas) - set(base)):
                raise ValueError(f"{folder}: adapts {unknown[:3]}, which the base does not have")
            weights[role] = {name: (tensor + deltas.get(name, 0.0)).to(dtype) for name, tensor in base.items()}
        head = {name: tensor.to(dtype) for name, tensor in load_file(checkpoint_dir / "vae.safetensors").items()}
        return cls(config, weights, head)

    # The base model -------------------------------------------------------------------------------------------------

    def hidden(self, role: str, embeds: Tensor, mask: Tensor, *, causal: bool) -> Tensor:
        """States after the final norm [B, T, d] of embeds [B, T, d] under mask [B, T] (1 = token, 0 = padding)."""
        config, weights = self.config, self.weights[role]
        batch, length, width = embeds.shape
        window = config.get("sliding_window")
        if window is not None and length >= window:
            raise ValueError(f"{length} tokens came; the oracle has no sliding window, so keep below {window}")
        heads = config["num_attention_heads"]
        kv_heads = config.get("num_key_value_heads") or heads
        head_dim = config.get("head_dim") or width // heads
        theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
        bias = additive_mask(mask, causal=causal, dtype=embeds.dtype)

        x = embeds
        for layer in range(config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}"

            def linear(name: str, value: Tensor, prefix: str = prefix) -> Tensor:
                return value @ weights[f"{prefix}.{name}.weight"].T

            normed = rms_norm(x, weights[f"{prefix}.input_layernorm.weight"], config["rms_norm_eps"])
            q, k, v = (
                linear(f"self_attn.{name}_proj", normed).view(batch, length, -1, head_dim).transpose(1, 2)
                for name in "qkv"
            )
            q, k = rotate(q, theta), rotate(k, theta)
            k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))
            attention = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(head_dim) + bias, dim=-1)
            x = x + linear("self_attn.o_proj", (attention @ v).transpose(1, 2).reshape(batch, length, -1))

            normed = rms_norm(x, weights[f"{prefix}.post_attention_layernorm.weight"], config["rms_norm_eps"])
            gate, up = linear("mlp.gate_proj", normed), linear("mlp.up_proj", normed)
            x = x + linear("mlp.down_proj", F.silu(gate) * up)
        return rms_norm(x, weights["model.norm.weight"], config["rms_norm_eps"])

    def embed(self, ids: Tensor) -> Tensor:
        """Token embeddings [B, T, d] of ids [B, T]; no adapter touches them."""
        return self.weights["base"]["model.embed_tokens.weight"][ids]

    def _logits(self, role: str, embeds: Tensor, mask: Tensor) -> Tensor:
        return self.hidden(role, embeds, mask, causal=True) @ self.weights[role]["lm_head.weight"].T

    def base_logits(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Causal logits [B, T, V] of the base alone: the unconditional arm of classifier-free guidance."""
        return self._logits("base", self.embed(ids), torch.ones_like(ids) if mask is None else mask)

    # The latent model -----------------------------------------------------------------------------------------------

    def encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Latents z [B, Z] of ids [B, T]: the mean of q(z | span) = N(z, I).

        Every token sees every unmasked token. With h the final-norm states, `w = softmax(f(h) + log mask)` over tokens
        and `z = w_e(sum w h)`. Both biases count (f's shifts all scores alike, so only w_e's shows).
        """
        h = self.hidden("encoder", self.embed(ids), mask, causal=False)
        scores = (h @ self.head["f.weight"].T + self.head["f.bias"]).squeeze(-1)
        weights = torch.softmax(scores.masked_fill(mask == 0, float("-inf")), dim=1)
        return (weights[..., None] * h).sum(dim=1) @ self.head["w_e.weight"].T + self.head["w_e.bias"]

    def soft_token(self, z: Tensor) -> Tensor:
        """`w_d(z)` [B, 1, d]: the input embedding that stands for z [B, Z]. Not normalised."""
        return (z @ self.head["w_d.weight"].T + self.head["w_d.bias"])[:, None]

    def decoder_logits(
        self, z: Tensor, context_ids: Tensor, target_ids: Tensor, context_mask: Tensor | None = None
    ) -> Tensor:
        """Logits [B, 1 + C + S, V] of [z][context][target]; the last context slot, at index C, predicts target 0.

        A dropped context is `context_mask` 0 with ids 0; its slots keep their positions. Targets are all unmasked.
        """
        context_mask = torch.ones_like(context_ids) if context_mask is None else context_mask
        embeds = torch.cat([self.soft_token(z), self.embed(context_ids), self.embed(target_ids)], dim=1)
        mask = torch.cat([mask_of_z(context_mask), context_mask, torch.ones_like(target_ids)], dim=1)
        return self._logits("decoder", embeds, mask)

    def router_logits(
        self, context_ids: Tensor, z: Tensor, target_ids: Tensor, context_mask: Tensor | None = None
    ) -> Tensor:
        """Logits [B, C + 1 + S, V] of [context][z][target]; the slot of z, at index C, predicts target 0."""
        context_mask = torch.ones_like(context_ids) if context_mask is None else context_mask
        embeds = torch.cat([self.embed(context_ids), self.soft_token(z), self.embed(target_ids)], dim=1)
        mask = torch.cat([context_mask, mask_of_z(context_mask), torch.ones_like(target_ids)], dim=1)
        return self._logits("router", embeds, mask)

    def greedy(
        self,
        kind: Literal["decoder", "router"],
        context_ids: Tensor,
        z: Tensor,
        n: int = 24,
        guidance_scale: float | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """Context and the n most likely tokens after it, ids [B, C + n]; never stops early.

        With `guidance_scale` s (router only) the next token maximises `base + s * (router - base)` on raw logits, where
        the
        base arm reads the same visible tokens without adapter and without z.

        Raises ValueError for an unknown kind, and for a guided decoder or a guided empty context, which MiniHF lacks.
        """
        if kind not in ("decoder", "router"):
            raise ValueError(f"kind {kind!r} came, expected 'decoder' or 'router'")
        if guidance_scale is not None and (kind == "decoder" or context_ids.shape[1] == 0):
            raise ValueError(
                "guidance_scale needs the router and at least one context token: the base arm has no z to read"
            )
        context_mask = torch.ones_like(context_ids) if context_mask is None else context_mask
        written = context_ids[:, :0]
        for _ in range(n):
            if kind == "decoder":
                logits = self.decoder_logits(z, context_ids, written, context_mask)[:, -1]
            else:
                logits = self.router_logits(context_ids, z, written, context_mask)[:, -1]
            if guidance_scale is not None:
                visible = torch.cat([context_ids, written], dim=1)
                base = self.base_logits(visible, torch.cat([context_mask, torch.ones_like(written)], dim=1))[:, -1]
                logits = base + guidance_scale * (logits - base)
            written = torch.cat([written, logits.argmax(dim=-1, keepdim=True)], dim=1)
        return torch.cat([context_ids, written], dim=1)


def mask_of_z(context_mask: Tensor) -> Tensor:
    """The mask entry [B, 1] of the latent's slot: always visible."""
    return context_mask.new_ones(context_mask.shape[0], 1)


# Arithmetic on latents ------------------------------------------------------------------------------------------------


def rescaled_mix(latents: Tensor, weights: Tensor) -> Tensor:
    """`sum_i weights[i] * latents[i]`, rescaled to the mean of the latents' norms; latents [n, Z] -> [Z].

    All of MiniHF's later samplers mix so: guide (.85, .15), topic (.75 z, .10 topic, .15 task), annealing, and the task
    vector (equal weights). The target norm is the plain mean, whatever the weights are.
    """
    mixed = (weights[:, None].to(latents) * latents).sum(dim=0)
    return mixed * latents.norm(dim=-1).mean() / mixed.norm()


def annealed_blends(z: Tensor, terminal: Tensor, n: int = 5, start: float = 0.15, step: float = 0.1) -> Tensor:
    """Guidance annealing without re-encoding: n successive blends [n, Z] of a draft z [Z] with a terminal [Z].

    `z_{k+1} = rescaled_mix([z_k, terminal], [1 - w_k, w_k])` with `w_k = start + step * k` for k = 0..n-1. Each blend
    starts from the one before, so the draft's share falls as the product of `1 - w_k` (0.85, 0.64, 0.41, 0.23, 0.10;
    rescaling shifts that a little). The weights have the form of MiniHF's `bigvae_generate_plan_2`,
    (.95 - s_k) z + (.05 + s_k) terminal, here with s_k = 0.1 * (k + 1); the sampler itself re-encodes what it wrote
    between two blends.
    """
    blends = []
    for k in range(n):
        weight = start + step * k
        z = rescaled_mix(torch.stack([z, terminal]), torch.tensor([1 - weight, weight]))
        blends.append(z)
    return torch.stack(blends)


# A tiny checkpoint to compare on --------------------------------------------------------------------------------------

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>")
"""Ids 0, 1, 2, as in Mistral's tokenizer; the 256 bytes follow."""

LORA_SHAPES = {".": (4, 4), "encoder": (4, 8), "decoder": (8, 8), "router": (8, 4)}
"""Folder -> (r, lora_alpha). They differ, so that a loader has to read each folder's own adapter_config.json."""


def write_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer of 259 tokens without merges; like Mistral's it adds `<s>` unless told not to."""
    symbols = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {symbol: index for index, symbol in enumerate(symbols)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings = {**names, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=2))


def make_minihf_folder(
    tmp_path: Path, seed: int, *, family: Literal["mistral", "llama"] = "mistral", stage: Literal[1, 2] = 2
) -> tuple[Path, Path]:
    """Write `base/` and `checkpoint/` under tmp_path from one seed, same seed same tensors: (base_dir, checkpoint_dir).

    The base has hidden size 48, 2 layers, 4 heads over 2 key-value heads; z has 16 numbers. The layout is MiniHF's:
    `encoder/`, `decoder/`, `router/` and a "default" adapter in the root, each in PEFT's file format, vae.safetensors,
    state.json; the first training stage (`stage=1`) has no router and no root adapter. Values that would hide a mistake
    are avoided: norm weights are not one, `lora_alpha / r` is not always one, the root adapter is not zero, the rotary
    base and the norm's epsilon are not the defaults, and the tokenizer adds `<s>` unless told not to.
    """
    hidden, middle, layers, heads, kv_heads, z_dim, vocab = 48, 80, 2, 4, 2, 16, 259
    head_dim = hidden // heads
    base_dir, checkpoint_dir = tmp_path / "base", tmp_path / "checkpoint"
    base_dir.mkdir(parents=True)
    checkpoint_dir.mkdir()
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> Tensor:
        return std * torch.randn(*shape, generator=generator)

    config = {
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "model_type": family,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": middle,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    if family == "mistral":
        config["sliding_window"] = 4096
    (base_dir / "config.json").write_text(json.dumps(config, indent=2))
    write_tokenizer(base_dir)

    sizes: dict[str, tuple[int, int]] = dict.fromkeys(
        TARGETS, (hidden, hidden)
    )  # [out, in], as torch stores a linear map
    sizes |= dict.fromkeys(("self_attn.k_proj", "self_attn.v_proj"), (kv_heads * head_dim, hidden))
    sizes |= dict.fromkeys(("mlp.gate_proj", "mlp.up_proj"), (middle, hidden))
    sizes["mlp.down_proj"] = (hidden, middle)
    base = {"model.embed_tokens.weight": normal(vocab, hidden, std=0.3)}
    base |= {"model.norm.weight": 1 + normal(hidden, std=0.2), "lm_head.weight": normal(vocab, hidden, std=0.15)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            base[f"{prefix}.{name}.weight"] = 1 + normal(hidden, std=0.2)
        for name, (rows, columns) in sizes.items():
            base[f"{prefix}.{name}.weight"] = normal(rows, columns, std=0.15)
    save_file(base, base_dir / "model.safetensors", metadata={"format": "pt"})

    for name, (rank, alpha) in LORA_SHAPES.items():
        if stage == 1 and name in (".", "router"):
            continue
        folder = checkpoint_dir / name
        folder.mkdir(exist_ok=True)
        adapter: dict[str, Tensor] = {}
        for layer in range(layers):
            for target, (rows, columns) in sizes.items():
                prefix = f"base_model.model.model.layers.{layer}.{target}"
                adapter[f"{prefix}.lora_A.weight"] = normal(rank, columns, std=0.2)
                adapter[f"{prefix}.lora_B.weight"] = normal(rows, rank, std=0.2)
        save_file(adapter, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        lora = {
            "peft_type": "LORA",
            "task_type": None,  # MiniHF passes the task type as the wrong positional argument, so it is never set
            "base_model_name_or_path": "",
            "r": rank,
            "lora_alpha": alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
            "modules_to_save": None,
            "target_modules": list(TARGETS),
        }
        (folder / "adapter_config.json").write_text(json.dumps(lora, indent=2))

    head = {"f.weight": normal(1, hidden, std=0.5), "f.bias": normal(1, std=0.5)}
    head |= {"w_e.weight": normal(z_dim, hidden, std=0.4), "w_e.bias": normal(z_dim, std=0.3)}
    head |= {"w_d.weight": normal(hidden, z_dim, std=0.1), "w_d.bias": normal(hidden, std=0.1)}
    save_file(head, checkpoint_dir / "vae.safetensors", metadata={"format": "pt"})
    (checkpoint_dir / "state.json").write_text(json.dumps({"step": 1, "last_kl_weight": 0.1}))
    return base_dir, checkpoint_dir
