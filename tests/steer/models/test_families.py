"""Every family of base models gets the same promises: encode, write, save, load."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, BloomConfig, GPTNeoConfig, PretrainedConfig

from steer.errors import UnsupportedBase
from steer.latents.pull import Pull
from steer.models.adapters import ENCODER, ROUTER
from steer.models.base import additive_mask
from steer.models.build import check_base
from steer.models.latent_model import LatentModel
from steer.writing.sampling import SamplingConfig
from steer.writing.writer import open_writer
from tests.steer.families import make_base
from tests.steer.tiny import SPAN, Z_DIM, assert_near, forced_logits, stir, tiny_model, write_guided
from tests.steer.writing.test_writer import generate, spy

# PEFT's own settings for layers of experts name more matrices than it then finds.
pytestmark = pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning")

GREEDY = SamplingConfig(temperature=0)
CONTEXTS = [list(b"Once upon a time there"), [65], list(b"The fox")]
FAMILIES = (
    "llama",
    "llama_tied",
    "mistral_wide",
    "mistral_window",
    "mixtral",
    "stablelm",
    "qwen2",
    "qwen3",
    "gpt2",
    "gpt_neox",
)


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(request.param, tiny_llama, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(base: Path) -> LatentModel:
    return tiny_model(base)


def test_every_linear_layer_but_the_head_is_adapted(model: LatentModel) -> None:
    names = {n for n, _ in model.peft.named_parameters() if "lora_B.router" in n}
    assert len(names) >= 2 * 4
    assert not any("lm_head" in n or "embed" in n for n in names)


def test_latents_see_the_whole_span_and_no_padding(model: LatentModel) -> None:
    rows = [[1, 2, 3, 4, 5, 6, 7, 8], [9], [10, 11, 12]]
    together = model.encode_ids(rows)
    model.fuse = False
    try:
        assert_near(model.encode_ids(rows), together)
    finally:
        model.fuse = True
    for row, ids in zip(together, rows, strict=True):
        model.peft.set_adapter(ENCODER)
        with torch.no_grad():
            mask = additive_mask(torch.ones(1, len(ids)), causal=False)
            states = model.peft(torch.tensor([ids]), attention_mask=mask, output_hidden_states=True, use_cache=False)
        assert_near(row, model.head.pool(states.hidden_states[-1], torch.ones(1, len(ids)))[0])


@pytest.mark.parametrize("fuse", [True, False])
def test_cached_logits_are_those_of_a_full_pass(model: LatentModel, fuse: bool) -> None:
    zs = torch.randn(3, 3, Z_DIM, generator=torch.Generator().manual_seed(0))
    model.fuse = fuse
    try:
        writer = open_writer(model, CONTEXTS, seeds=[1, 2, 3], spans=3, with_null=True, sampling=GREEDY)
        seen = spy(writer)
        tokens = []
        for z in zs:
            before = len(seen)
            writer.draft()
            del seen[before:]
            tokens.append(generate(writer, z, 1.5))
    finally:
        model.fuse = True
    got = torch.stack(seen, dim=1).unflatten(1, (3, SPAN))
    for row, context in enumerate(CONTEXTS):
        ids = [step[row] for step in tokens]
        own = forced_logits(model, ROUTER, context, [(z[row], x) for z, x in zip(zs, ids, strict=True)])
        null = forced_logits(model, ROUTER, context, [(None, x) for x in ids])
        for step in range(3):
            wanted = null[step] + 1.5 * (own[step] - null[step])
            assert wanted.std() > 0.1
            assert_near(got[row, step], wanted, atol=5e-4)
            assert ids[step] == wanted.argmax(-1).tolist()


def test_fused_copies_are_right(model: LatentModel) -> None:
    embeds = model.embed(torch.tensor([[1, 2, 3, 4, 5]]))
    results = []
    for name in (ENCODER, ROUTER):
        fused = model.role_logits(name, embeds)
        model.fuse = False
        assert_near(model.role_logits(name, embeds), fused, atol=5e-4)
        model.fuse = True
        results.append(fused)
    assert (results[0] - results[1]).abs().max() > 1e-2


def test_a_model_of_this_family_survives_saving_with_its_base(model: LatentModel, tmp_path: Path) -> None:
    from steer.models import checkpoint

    checkpoint.save(model, tmp_path / "model", with_base=True)
    loaded = LatentModel.from_pretrained(tmp_path / "model", device="cpu")
    texts = ["a fox", "dogs"]
    assert_near(loaded.encode(texts), model.encode(texts), atol=1e-5)
    pull = Pull(model.encode("gold")[0], torch.tensor([0.5, 1.0]))
    options = {"pulls": [pull], "spans": 2, "seeds": [1, 2], "guidance_scale": 1.3}
    written = [[row.ids for row in write_guided(m, ["The", "Once"], **options)] for m in (model, loaded)]
    assert written[0] == written[1]


def test_bfloat16_writes_and_encodes(base: Path) -> None:
    model = stir(tiny_model(base, dtype="bfloat16"))
    assert model.encode(["a fox"]).dtype == torch.float32
    assert len(write_guided(model, ["The"], spans=1, seeds=[1])[0].ids) > 0


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            GPTNeoConfig(vocab_size=258, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global"], 2]]),
            "stays causal",
        ),
        (BloomConfig(vocab_size=258, hidden_size=32, n_layer=2, n_head=4), "four-dimensional mask"),
    ],
    ids=["gpt_neo", "bloom"],
)
def test_bases_that_cannot_encode_are_refused(config: PretrainedConfig, reason: str) -> None:
    with pytest.raises(UnsupportedBase, match=reason):
        check_base(AutoModelForCausalLM.from_config(config).eval(), "a base")
