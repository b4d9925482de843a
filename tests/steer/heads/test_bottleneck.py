"""Pooling and soft tokens against their formulas."""

import pytest
import torch

from steer.heads.bottleneck import LatentHead


@pytest.fixture
def head() -> LatentHead:
    torch.manual_seed(0)
    made = LatentHead(12, 5, 3)
    made.reset(0.5)
    return made


def states(rows: int = 2, length: int = 7) -> torch.Tensor:
    return torch.randn(rows, length, 12, generator=torch.Generator().manual_seed(1))


def test_pooling_is_the_attention_weighted_mean_mapped_by_w_e(head: LatentHead) -> None:
    hidden, mask = states(), torch.tensor([[1] * 7, [0, 1, 1, 0, 1, 0, 0]])
    scores = hidden @ head.f.weight[0] + head.f.bias + torch.log(mask.float())
    wanted = (torch.softmax(scores, 1)[..., None] * hidden).sum(1) @ head.w_e.weight.T + head.w_e.bias
    torch.testing.assert_close(head.pool(hidden, mask), wanted, atol=1e-6, rtol=0)


def test_masked_states_do_not_count_and_one_state_is_its_own_mean(head: LatentHead) -> None:
    hidden, mask = states(), torch.tensor([[1, 1, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0]])
    changed = hidden.masked_fill(mask[..., None] == 0, 99.0)
    assert torch.equal(head.pool(hidden, mask), head.pool(changed, mask))
    torch.testing.assert_close(head.pool(hidden, mask)[1], head.w_e(hidden[1, 3]))


def test_scores_of_any_size_keep_the_weights_finite(head: LatentHead) -> None:
    head.f.weight.data.fill_(1e6)
    assert torch.isfinite(head.pool(states(), torch.ones(2, 7))).all()


def test_bfloat16_states_give_float32_latents(head: LatentHead) -> None:
    z = head.pool(states().bfloat16(), torch.ones(2, 7))
    assert z.dtype == torch.float32
    torch.testing.assert_close(z, head.pool(states(), torch.ones(2, 7)), atol=0.05, rtol=0)


def test_soft_tokens_are_slices_of_one_linear_map(head: LatentHead) -> None:
    z = torch.randn(4, 5)
    soft = head.soft(z)
    assert soft.shape == (4, 3, 12)
    for token in range(3):
        rows = slice(12 * token, 12 * (token + 1))
        torch.testing.assert_close(soft[:, token], z @ head.w_d.weight[rows].T + head.w_d.bias[rows])


def test_reset_gives_soft_tokens_of_the_size_of_embeddings() -> None:
    torch.manual_seed(0)
    head = LatentHead(256, 128, 4)
    head.reset(0.3)
    soft = head.soft(torch.randn(64, 128))
    assert abs(float(soft.detach().pow(2).mean().sqrt()) - 0.3) < 0.02
    assert abs(float(head.null_soft(1).detach().pow(2).mean().sqrt()) - 0.3) < 0.03
    gram = head.w_e.weight @ head.w_e.weight.T
    torch.testing.assert_close(gram, torch.eye(128), atol=1e-5, rtol=0)


def test_a_tied_start_writes_from_what_was_read() -> None:
    torch.manual_seed(0)
    head = LatentHead(16, 16, 3)
    head.reset(0.01, tied=True)
    hidden = torch.randn(5, 1, 16)
    soft = head.soft(head.pool(hidden, torch.ones(5, 1)))
    torch.testing.assert_close(soft, hidden.expand(5, 3, 16), atol=0.1, rtol=0)


def test_the_null_latent_is_the_same_in_every_row_and_absent_in_the_minihf_layout(head: LatentHead) -> None:
    null = head.null_soft(3)
    assert null.shape == (3, 3, 12)
    assert torch.equal(null[0], null[2])
    bare = LatentHead(12, 5, with_null=False)
    assert "null" not in bare.state_dict()
    with pytest.raises(AssertionError, match="no null latent"):
        bare.null_soft(1)
