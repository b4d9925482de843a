"""Bases in fewer bits: options of `load_base` for a frozen base that takes a half, a quarter or an eighth of the room.

In 4 bits the weights are NF4 with doubly quantised scales, as QLoRA has it (Dettmers et al. 2023); in 8 bits they are
LLM.int8 (Dettmers et al. 2022). Embeddings, norms and the output head stay in `rest`. PEFT's
`prepare_model_for_kbit_training` is not used: it would cast embeddings and head to float32, gigabytes with a large
vocabulary, where transformers computes norms in float32 by itself and our losses are taken in float32.
"""

import importlib.util
from typing import Any, Literal, get_args

import torch

from steer.errors import UnsupportedBase

LoadIn = Literal["float32", "bfloat16", "8bit", "4bit"]


def load_options(load_in: LoadIn, rest: torch.dtype = torch.bfloat16) -> dict[str, Any]:
    """Options of `load_base`, `fresh_model` or `LatentModel.from_pretrained`.

    Args:
        load_in: the base's weights.
        rest: of a quantised base, what is not quantised, and the type of its arithmetic.

    Raises:
        ValueError: no such `load_in`.
        UnsupportedBase: the weights are to be quantised, and bitsandbytes is not installed.
    """
    if load_in not in get_args(LoadIn):
        raise ValueError(f"load_in {load_in!r} is unknown; expected {', '.join(get_args(LoadIn))}")
    if load_in in ("float32", "bfloat16"):
        return {"dtype": load_in}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UnsupportedBase(
            f"a base in {load_in} needs bitsandbytes: `pip install 'steer[quantised]'`; without it, load_in: bfloat16 "
            "takes half the memory of float32"
        )
    from transformers import BitsAndBytesConfig

    if load_in == "8bit":
        return {"dtype": rest, "quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return {
        "dtype": rest,
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=rest,
        ),
    }
