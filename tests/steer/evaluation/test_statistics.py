"""BLEU, shares, ranks and the importance-weighted bound, on cases that can be worked out by hand."""

import math

import numpy as np
import pytest
import torch

from steer.evaluation.bleu import corpus_bleu
from steer.evaluation.bound import importance_bound, log_weights
from steer.evaluation.contexts import _names_someone
from steer.evaluation.paths import summarize_paths
from steer.evaluation.statistics import nearest_own, spearman


def test_bleu_clips_as_in_the_paper() -> None:
    # Papineni et al. 2002, section 2.1: "the" may be matched twice only.
    assert corpus_bleu(["the the the the the the the"], ["the cat is on the mat."], order=1) == pytest.approx(2 / 7)


def test_bleu_by_hand() -> None:
    assert corpus_bleu(["A fox ran home."], ["A fox ran home."]) == 1
    # Words: a fox ran far . against a fox ran home . -> 4/5, 2/4, 1/3 and 0/2, so 4-grams give 0 and 3-grams a value.
    texts, references = ["a fox ran far."], ["a fox ran home."]
    assert corpus_bleu(texts, references) == 0
    assert corpus_bleu(texts, references, order=3) == pytest.approx((4 / 5 * 2 / 4 * 1 / 3) ** (1 / 3))
    # Pooled over the corpus, not averaged.
    assert corpus_bleu([*texts, "It was so."], [*references, "It was so."], order=1) == pytest.approx(8 / 9)
    # Three words for five: the penalty is exp(1 - 5 / 3).
    assert corpus_bleu(["a fox ran"], ["a fox ran home."], order=2) == pytest.approx(math.exp(1 - 5 / 3))
    assert corpus_bleu([""], ["a"]) == 0
    with pytest.raises(ValueError, match="2 texts for 1 references"):
        corpus_bleu(["a", "b"], ["a"])


def test_rank_correlation_and_the_nearest() -> None:
    assert spearman(np.arange(4), np.array([1.0, 5, 6, 70])) == pytest.approx(1)
    assert spearman(np.arange(4), np.array([4.0, 3, 2, 1])) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    assert spearman(np.arange(4), np.array([0.0, 1, 1, 2])) == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert spearman(np.arange(4), np.ones(4)) == 0
    scores = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.3, 0.2, 0.1]])
    assert nearest_own(scores).tolist() == [True, False, False]


@pytest.fixture
def gaussian() -> tuple[torch.Tensor, torch.Tensor, float, torch.Tensor]:
    """`x = z + 2 noise` in three dimensions: x, the posterior's mean, log p(x), and log p(x | z) of `[K, B, 3]`."""
    x = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    wanted = float(torch.distributions.Normal(0.0, math.sqrt(5)).log_prob(x).sum())
    return x, x / 5, wanted, torch.distributions.Normal(0.0, 2.0).log_prob(x).sum()


def weights_of(x: torch.Tensor, mean: torch.Tensor, k: int, rows: int, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(k, rows, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    mean = mean.expand(rows, 3)
    return log_weights(torch.distributions.Normal(mean + noise, 2.0).log_prob(x).sum(-1), mean, noise)


def test_the_bound_finds_a_likelihood_in_closed_form(gaussian: tuple) -> None:
    x, mean, wanted, _ = gaussian
    assert float(importance_bound(weights_of(x, mean, 200_000, 1))) == pytest.approx(wanted, abs=0.01)
    # The ELBO falls short by KL(q || posterior), whose variance is 4 / 5 where that of q is 1.
    short = 3 / 2 * (5 / 4 - 1 + math.log(4 / 5))
    assert float(weights_of(x, mean, 1, 200_000).mean()) == pytest.approx(wanted - short, abs=0.01)


def test_the_bound_tightens_with_samples_and_never_exceeds_the_truth(gaussian: tuple) -> None:
    x, mean, wanted, _ = gaussian
    # A posterior that is off, so that there is something to gain.
    found = [float(importance_bound(weights_of(x, mean + 1, k, 4000)).mean()) for k in (1, 4, 16, 64)]
    assert found == sorted(found) and found[-1] < wanted and found[0] < wanted - 1
    assert wanted - found[-1] < (wanted - found[0]) / 10


def test_paths_are_summarised_by_their_definitions() -> None:
    to_b = np.array([[0.1, 0.1], [0.2, 0.4], [0.2, 0.3]])  # the second falls back
    to_a, nll = to_b[::-1], np.array([[1.0, 3.0], [2.0, 2.0], [1.5, 1.0]])
    found = summarize_paths(to_a, to_b, nll)
    assert found["rises"][0] == 0.5 and found["falls"][0] == 0.5
    assert found["as_fluent"][0] == 0.5  # 2.0 is above both 1.0 and 1.5, but not above 3.0
    assert found["to_b"] == pytest.approx([0.1, 0.3, 0.25]) and found["base_nll"] == pytest.approx([2, 2, 1.25])
    assert found["spearman"] == pytest.approx((1.5 / math.sqrt(1.5 * 2) + 0.5) / 2)


def test_names_are_looked_for_where_only_one_context_has_them() -> None:
    texts = [["Tom ran.", "It ran."], ["Anna sat.", "Tommy sat."]]
    names, other = [[{"Tom", "Sam"}, {"Tom"}], [{"Sam"}, {"Tom"}]], [[{"Sam"}, set()], [set(), {"Tom"}]]
    found = _names_someone(texts, names, other)
    assert found is not None and found[0] == pytest.approx(1 / 3)
    assert _names_someone(texts, other, other) is None
