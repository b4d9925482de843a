"""The draft head: draws by hand, what it reads in every writer and engine, and its place in a model folder."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from steer.errors import CheckpointError, GuidanceError, LatentError
from steer.evaluation.continuations import Row, read_hidden
from steer.heads.prior import PriorConfig, PriorHead
from steer.latents.pull import Pull
from steer.latents.schedules import make_schedule
from steer.models import checkpoint
from steer.models.checkpoint import PRIOR
from steer.models.config import LatentConfig
from steer.models.latent_model import LatentModel
from steer.noise import RowNoise
from steer.search.budget import Budget
from steer.search.config import guided_menu
from steer.search.engines.opening import open_engine
from steer.search.searched import write_searched
from steer.search.tree import Tree
from steer.writing.proposals import read_state
from steer.writing.sampling import SamplingConfig
from steer.writing.writer import open_writer
from tests.steer.minihf_oracle import make_minihf_folder
from tests.steer.tiny import SPAN, Z_DIM, assert_near, sharpen, tiny_model, write_guided

WIDTH = 32 + Z_DIM  # of the tiny base's hidden states, and of the latents
CONTEXTS = [[3, 1, 4, 1, 5, 9, 2], [65], [200, 100, 50]]


def head_of(encoder_id: str = "e", *, state_dim: int = WIDTH, z_dim: int = Z_DIM, components: int = 3) -> PriorHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = PriorConfig(
            encoder_id=encoder_id,
            state_dim=state_dim,
            z_dim=z_dim,
            axes=z_dim,
            width=8,
            components=components,
            spread=1.0,
        )
        head = PriorHead(config).eval()
        head.fit_axes(torch.randn(50, state_dim), torch.randn(50, z_dim) * 2 + 1)
    return head.requires_grad_(False)


def say(head: PriorHead, weights: list[float], means: Tensor, spreads: Tensor) -> PriorHead:
    """Let a head answer this mixture to whatever it is asked; means and spreads `[K, z]` in its own axes."""
    for layer in (head.means, head.weights, head.spreads):
        layer.weight.zero_()
    head.means.bias.copy_(means.reshape(-1))
    head.weights.bias.copy_(torch.tensor(weights).log())
    head.spreads.bias.zero_()
    head.widths.data.copy_(spreads.log())
    return head


@pytest.fixture(scope="module")
def model(tiny_llama: Path) -> LatentModel:
    made = sharpen(tiny_model(tiny_llama))
    made.prior = head_of(made.latent_config.encoder_id)
    return made


@pytest.fixture(scope="module")
def minihf(tmp_path_factory: pytest.TempPathFactory) -> LatentModel:
    base, folder = make_minihf_folder(tmp_path_factory.mktemp("minihf"), seed=7)
    made = LatentModel.from_minihf(folder, base, span_tokens=SPAN, device="cpu")
    config = made.latent_config
    made.prior = head_of(config.encoder_id, state_dim=config.base.hidden_size + config.z_dim, z_dim=config.z_dim)
    return made


def noise(count: int, first: int = 0) -> RowNoise:
    return RowNoise(tuple(range(first, first + count)))


# Draws ----------------------------------------------------------------------------------------------------------------


def test_axes_and_scales_are_those_of_the_latents() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(Z_DIM, Z_DIM, generator=generator)
    latents = torch.randn(4000, Z_DIM, generator=generator) @ mixing + 3
    head = head_of()
    head.fit_axes(torch.randn(10, WIDTH, generator=generator), latents)
    z = head.standardize(latents)
    assert_near(z.mean(0), torch.zeros(Z_DIM), atol=1e-3)
    assert_near(torch.cov(z.T), torch.eye(Z_DIM), atol=2e-3)
    assert_near(head._latents(z), latents, atol=1e-3)


def test_the_likelihood_by_hand() -> None:
    means, spreads = torch.randn(2, Z_DIM), torch.rand(2, Z_DIM) + 0.5
    head = say(head_of(components=2), [0.3, 0.7], means, spreads)
    z = torch.randn(4, Z_DIM)
    density = torch.distributions.Normal(means, spreads).log_prob(z[:, None]).sum(2)
    wanted = -(torch.tensor([0.3, 0.7]).log() + density).logsumexp(1) / Z_DIM
    assert_near(head.nll(torch.zeros(4, WIDTH), z), wanted)
    plain = say(head_of(components=1), [1.0], torch.zeros(1, Z_DIM), torch.ones(1, Z_DIM))
    assert_near(plain.nll(torch.zeros(4, WIDTH), z), 0.5 * (z**2).mean(1) + 0.5 * math.log(2 * math.pi))


def test_draws_have_the_mixture_s_share_mean_and_spread() -> None:
    means = torch.stack([torch.full((Z_DIM,), -5.0), torch.full((Z_DIM,), 5.0)])
    spreads = torch.stack([torch.full((Z_DIM,), 0.5), torch.full((Z_DIM,), 1.0)])
    head = say(head_of(components=2), [0.2, 0.8], means, spreads)
    states = torch.zeros(4000, WIDTH)
    z = head.standardize(head.sample(states, noise(4000), 0))
    high = z[:, 0] > 0
    assert float(high.float().mean()) == pytest.approx(0.8, abs=0.03)
    assert_near(z[high].mean(0), means[1], atol=0.1)
    assert_near(z[high].std(0), spreads[1], atol=0.06)
    assert_near(z[~high].std(0), spreads[0], atol=0.06)
    # Densities to the power of 4: half the spread, and weights of 0.2 ** 4 to 0.8 ** 4.
    cool = head.standardize(head.sample(states, noise(4000), 0, temperature=0.25))
    assert float((cool[:, 0] > 0).float().mean()) == pytest.approx(256 / 257, abs=0.01)
    assert_near(cool[cool[:, 0] > 0].std(0), spreads[1] / 2, atol=0.04)
    narrow = head.standardize(head.sample(states, noise(4000), 0, spread=0.5))
    assert_near(narrow[narrow[:, 0] > 0].std(0), spreads[1] / 2, atol=0.04)
    greedy = head.standardize(head.sample(states[:3], noise(3), 0, temperature=0))
    assert_near(greedy, means[1].expand(3, -1), atol=1e-4)
    assert_near(head.standardize(head.expect(states[:1]))[0], torch.full((Z_DIM,), 3.0), atol=1e-4)


def test_a_draw_depends_on_its_own_state_seed_and_step_alone() -> None:
    head, states = head_of(), torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    together = head.sample(states, noise(5), 3)
    for row in range(5):
        assert_near(head.sample(states[row : row + 1], noise(1, row), 3), together[row : row + 1], atol=1e-5)
    assert torch.equal(head.sample(states, noise(5), 3), together)
    assert not torch.allclose(head.sample(states, noise(5), 4), together)
    assert not torch.allclose(head.sample(states, noise(5, 1), 3), together)


def test_what_does_not_fit() -> None:
    with pytest.raises(LatentError, match=r"states have shape \(2, 5\), expected \[n, 38\]"):
        head_of().sample(torch.zeros(2, 5), noise(2), 0)
    with pytest.raises(LatentError, match="NaN or infinite states"):
        head_of().sample(torch.full((2, WIDTH), torch.nan), noise(2), 0)


# What it reads --------------------------------------------------------------------------------------------------------


def plain_row(context: list[int], spans: list[list[int]], null: list[bool]) -> Row:
    import numpy as np

    return Row(np.array(context), np.array(spans), np.array(null))


@pytest.mark.parametrize("fuse", [True, False])
def test_training_reads_what_a_writer_reads(model: LatentModel, fuse: bool) -> None:
    zs = torch.randn(3, 3, Z_DIM, generator=torch.Generator().manual_seed(2))  # [step, row, z]
    steered = [True, False, True]
    model.fuse = fuse
    try:
        writer = open_writer(model, CONTEXTS, seeds=[1, 2, 3], spans=3)
        states = []
        for z, used in zip(zs, steered, strict=True):
            states.append(writer._prefix.hidden())
            writer.write(z if used else None)
        rows = []
        for row, context in enumerate(CONTEXTS):
            spans = [list(span.ids) for span in writer.written[row]]
            assert all(len(span) == SPAN for span in spans)
            rows.append(plain_row(context, spans, [not used for used in steered]))
        found = read_hidden(model, rows, list(zs.transpose(0, 1)))
    finally:
        model.fuse = True
    for row in range(3):
        for step in range(3):
            assert_near(found[row][step], states[step][row])


def test_training_reads_what_a_writer_of_bigvae_s_layout_reads(minihf: LatentModel) -> None:
    z = torch.randn(2, 3, minihf.latent_config.z_dim, generator=torch.Generator().manual_seed(2))
    writer = open_writer(minihf, CONTEXTS, seeds=[1, 2, 3], spans=2)
    states = [writer._prefix.hidden()]
    writer.write(z[0])
    states.append(writer._prefix.hidden())
    writer.write(z[1])
    for row, context in enumerate(CONTEXTS):
        spans = [list(span.ids) for span in writer.written[row]]
        if any(len(span) < SPAN for span in spans):
            continue
        [found] = read_hidden(minihf, [plain_row(context, spans, [False, False])], [z[:, row]])
        assert_near(found, torch.stack([s[row] for s in states]))


def test_a_state_ends_with_the_latent_of_what_is_visible_last(model: LatentModel) -> None:
    hidden = torch.randn(3, 32)
    visible = [list(range(SPAN + 3)), [7], []]
    found = read_state(model, hidden, visible)
    assert torch.equal(found[:, :32], hidden)
    assert_near(found[:, 32:], model.encode_ids([list(range(3, SPAN + 3)), [7], [256]]), atol=1e-5)


@pytest.mark.parametrize("paged", [True, False])
def test_engines_read_what_a_writer_reads(model: LatentModel, paged: bool) -> None:
    zs = torch.randn(2, 1, Z_DIM, generator=torch.Generator().manual_seed(2))
    writer = open_writer(model, [CONTEXTS[0]], seeds=[1], spans=3)
    tree = Tree(SPAN, Z_DIM)
    node = tree.add_root(CONTEXTS[0], seed=0, horizon=3)
    other = tree.add_root(CONTEXTS[2], seed=1, horizon=3)
    wanted, nodes = [writer._prefix.hidden()], [node]
    for step in range(2):
        writer.write(zs[step] if step == 0 else None)
        written_from = zs[step, 0].numpy() if step == 0 else None
        node = tree.add(node, 0, list(writer.written[0][-1].ids), written_from=written_from)
        nodes.append(node)
        wanted.append(writer._prefix.hidden())
    engine = open_engine(model, tree, paged=paged, sampling=SamplingConfig(), with_null=paged)
    before = engine.forward_tokens
    found = engine.hidden([*nodes, other])
    assert_near(found[:3], torch.cat(wanted))
    assert_near(found[3:], open_writer(model, [CONTEXTS[2]], seeds=[1], spans=1)._prefix.hidden())
    assert engine.forward_tokens > before


@pytest.mark.parametrize("layout", ["interleaved", "minihf"])
@pytest.mark.parametrize("with_null", [True, False])
def test_drafts_by_head_leave_no_trace(model: LatentModel, minihf: LatentModel, layout: str, with_null: bool) -> None:
    made = model if layout == "interleaved" else minihf
    zs = torch.randn(3, 3, made.latent_config.z_dim, generator=torch.Generator().manual_seed(3))
    texts = []
    for drafting in (False, True):
        writer = open_writer(made, CONTEXTS, seeds=[1, 2, 3], spans=3, with_null=with_null, drafts="head")
        for z in zs:
            if drafting:
                first, second = writer.draft(), writer.draft()
                assert torch.equal(first, second) and first.shape == z.shape
            writer.write(z, guidance_scale=1.5 if with_null else None)
        texts.append([writer.ids(row) for row in range(3)])
    assert texts[0] == texts[1]


# Writing --------------------------------------------------------------------------------------------------------------


def pull(model: LatentModel, spans: int = 3) -> Pull:
    latent = torch.randn(model.latent_config.z_dim, generator=torch.Generator().manual_seed(9))
    return Pull(latent, make_schedule("bridge", spans))


@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_guided_writing_by_head(model: LatentModel, scale: float) -> None:
    options = {"pulls": [pull(model)], "spans": 3, "guidance_scale": scale, "drafts": "head"}
    together = write_guided(model, CONTEXTS, seeds=[4, 5, 6], **options)
    for row, context in enumerate(CONTEXTS):
        [alone] = write_guided(model, [context], seeds=[4 + row], **options)
        assert alone.ids == together[row].ids
        assert_near(alone.drafts, together[row].drafts, atol=1e-4)
    written = write_guided(model, CONTEXTS, seeds=[4, 5, 6], **{**options, "drafts": "write"})
    assert [w.ids for w in written] != [w.ids for w in together]
    # The last step arrives and takes no draft.
    assert all(bool(w.drafts[:2].any(dim=1).all()) and not bool(w.drafts[2].any()) for w in together)
    plain = [write_guided(model, CONTEXTS, seeds=[4, 5, 6], spans=3, drafts=d) for d in ("write", "head")]
    assert [w.ids for w in plain[0]] == [w.ids for w in plain[1]]


@pytest.mark.parametrize("paged", [True, False])
def test_search_by_head_pays_for_spans_alone(model: LatentModel, paged: bool) -> None:
    def search(drafts: str, **options: object):
        return write_searched(
            model,
            CONTEXTS[:1],
            terminals=pull(model).latent,
            spans=2,
            policy="beam",
            budget=Budget(nodes=8),
            menu=guided_menu(1.5),
            seeds=[3],
            rewards={"similarity": 1},
            paged=paged,
            drafts=drafts,  # pyright: ignore[reportArgumentType]
            **options,  # pyright: ignore[reportArgumentType]
        )[0]

    found, again, written = search("head"), search("head"), search("write")
    assert found.spent.tokens == found.spent.nodes * SPAN
    assert written.spent.tokens > written.spent.nodes * SPAN
    assert found.ids == again.ids and found.tree.has_draft.any()
    assert (found.tree.draft[found.tree.roots[0]] == again.tree.draft[again.tree.roots[0]]).all()
    # A tree goes on with the drafts that it has.
    more = search("head", tree=found.tree)
    assert more.spent.nodes >= found.spent.nodes


def test_a_model_without_a_head_says_how_to_get_one(tiny_llama: Path) -> None:
    without = tiny_model(tiny_llama)
    message = "need a model with a draft head, and this one has none; train one with `steer train prior`"
    with pytest.raises(GuidanceError, match=message):
        write_guided(without, CONTEXTS, pulls=[pull(without)], spans=3, drafts="head")
    with pytest.raises(GuidanceError, match=message):
        write_searched(
            without, CONTEXTS, terminals=pull(without).latent, spans=2, budget=Budget(nodes=2), drafts="head"
        )
    with pytest.raises(GuidanceError, match="unknown way of drafting 'guess'; expected one of write, head"):
        write_guided(without, CONTEXTS, spans=3, drafts="guess")  # type: ignore[arg-type]


# In a model folder ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(model: LatentModel, tmp_path: Path) -> Iterator[Path]:
    model.save_pretrained(tmp_path / "saved")
    yield tmp_path / "saved"


def edit(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "steer_config.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_head_travels_with_its_model(model: LatentModel, folder: Path, tmp_path: Path) -> None:
    loaded = LatentModel.from_pretrained(folder)
    states = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1))
    assert loaded.prior is not None and model.prior is not None
    wanted = model.prior.sample(states, noise(4), 0)
    assert torch.equal(loaded.prior.sample(states, noise(4), 0), wanted)
    assert loaded.prior.config.encoder_id == loaded.latent_config.encoder_id and PRIOR in loaded.latent_config.files
    checkpoint.save(loaded, tmp_path / "half", dtype=torch.float16)
    again = LatentModel.from_pretrained(tmp_path / "half")
    assert again.latent_config.encoder_id != loaded.latent_config.encoder_id
    assert again.prior is not None
    assert_near(again.prior.sample(states, noise(4), 0), wanted, atol=2e-2)


def test_a_model_without_one_has_none(tiny_llama: Path, tmp_path: Path) -> None:
    tiny_model(tiny_llama).save_pretrained(tmp_path)
    assert LatentModel.from_pretrained(tmp_path).prior is None
    assert LatentConfig.load(tmp_path).prior is None and not (tmp_path / PRIOR).exists()


def test_a_head_of_another_encoder_is_refused(tiny_llama: Path, folder: Path, tmp_path: Path) -> None:
    message = "gives latents of encoder 'other', the model's is '.*steer train prior"
    made = tiny_model(tiny_llama)
    made.prior = head_of("other")
    with pytest.raises(CheckpointError, match=message):
        made.save_pretrained(tmp_path / "x")
    edit(folder, lambda data: data["prior"].update(encoder_id="other"))
    with pytest.raises(CheckpointError, match=message):
        LatentModel.from_pretrained(folder)


def test_damage_is_named(folder: Path, tmp_path: Path) -> None:
    edit(Path(shutil.copytree(folder, tmp_path / "wide")), lambda data: data["prior"].update(width=16))
    with pytest.raises(CheckpointError, match=r"prior.safetensors: .* has shape"):
        LatentModel.from_pretrained(tmp_path / "wide")
    path = folder / PRIOR
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"prior.safetensors was changed or is truncated"):
        LatentModel.from_pretrained(folder)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"prior.safetensors is missing"):
        LatentModel.from_pretrained(folder)
