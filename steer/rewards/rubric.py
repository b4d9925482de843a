"""Yes/no questions about the text, answered by the bare base, for bases that can answer.

As in MiniHF's zero-shot evaluator a question scores `logsumexp(yes) - logsumexp(no)` over the logits behind it. MiniHF
writes the token ids down per tokenizer, and reads weights and signs of its questions but drops them; here the ids are
looked up, and both count.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pydantic
import torch
from torch import Tensor

from steer.errors import RewardError
from steer.models.likelihood import bare_logits
from steer.rewards.states import Options, States

if TYPE_CHECKING:
    from steer.models.latent_model import LatentModel

TEMPLATE = "{text}\n\nQuestion: {question} Yes or no?\nAnswer:"


class Question(Options):
    """One question. `sign` is 1 where yes is good and -1 where no is; `weight` is relative to the other questions'."""

    question: str = pydantic.Field(min_length=1)
    weight: float = pydantic.Field(default=1.0, gt=0, allow_inf_nan=False)
    sign: Literal[1, -1] = 1


class RubricOptions(Options):
    """Options of `rubric`.

    Attributes:
        questions: mappings of `question`, `weight` and `sign`, or just the question.
        template: what the base reads; `{text}` and `{question}` stand in it once each. It ends where the answer begins,
            without a space, which belongs to the answer's token.
        yes_words, no_words: the answers; each counts in lower case, upper case and capitalised, with and without a
            space before it. In YAML they need quotes, since a bare yes is a truth value there.
        max_tokens: tokens of the text that are read, its last ones; by default the model's `max_context`.
    """

    questions: tuple[Question, ...] = pydantic.Field(min_length=1)
    template: str = TEMPLATE
    yes_words: tuple[str, ...] = pydantic.Field(default=("yes",), min_length=1)
    no_words: tuple[str, ...] = pydantic.Field(default=("no",), min_length=1)
    max_tokens: int | None = pydantic.Field(default=None, ge=1)

    @pydantic.field_validator("questions", mode="before")
    @classmethod
    def _plain_questions(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [{"question": item} if isinstance(item, str) else item for item in value]
        return value

    @pydantic.field_validator("template")
    @classmethod
    def _check_template(cls, template: str) -> str:
        for part in ("{text}", "{question}"):
            if template.count(part) != 1:
                raise ValueError(f"the template must hold {part} once; it holds it {template.count(part)} times")
        if template.endswith((" ", "{text}")):
            raise ValueError("the template must not end with a space or with {text}; the answer comes right behind it")
        return template

    @pydantic.model_validator(mode="after")
    def _check_words(self) -> "RubricOptions":
        if both := {w.strip().casefold() for w in self.yes_words} & {w.strip().casefold() for w in self.no_words}:
            raise ValueError(f"{', '.join(sorted(both))}: a word cannot mean both yes and no")
        return self


def rubric(states: States, options: RubricOptions) -> Tensor:
    """Weighted mean of the questions' signed log-odds of yes over no: `[n]` float32, nats, unbounded.

    With weights w and signs s it is `sum(w * s * odds) / sum(w)`. All states and questions are read in shared batches.

    Raises:
        RewardError: the tokenizer has no token for yes or for no.
    """
    model = states.model
    yes, no = check_rubric(model, options)
    rows = zip(states.contexts, states.before, states.spans, strict=True)
    prompts = [prompt for row in rows for prompt in _prompts(model, [i for part in row for i in part], options)]
    odds = torch.zeros(len(prompts))
    for chosen, logits in bare_logits(model, prompts):
        last = torch.tensor([len(prompts[i]) - 1 for i in chosen], device=logits.device)
        answers = logits[torch.arange(len(chosen), device=logits.device), last].float()
        odds[chosen] = (answers[:, yes].logsumexp(dim=1) - answers[:, no].logsumexp(dim=1)).cpu()
    weights = torch.tensor([q.weight for q in options.questions])
    signs = torch.tensor([q.sign for q in options.questions])
    # A sum of products, not a matrix product, whose order of addition may depend on the number of rows.
    return (odds.view(len(states), len(options.questions)) * (weights * signs / weights.sum())).sum(dim=1)


def check_rubric(model: "LatentModel", options: RubricOptions) -> tuple[list[int], list[int]]:
    """Ids of the tokens that mean yes, and of those that mean no.

    Raises:
        RewardError: the tokenizer has none for one of them.
    """
    return answer_ids(model.tokenizer, options.yes_words), answer_ids(model.tokenizer, options.no_words)


def answer_ids(tokenizer: Any, words: Sequence[str]) -> list[int]:
    """Ids of all tokens that spell one of the words, whatever the case and the space before it, in order.

    Only whole tokens count: the first piece of a longer word would also begin other words.

    Raises:
        RewardError: there are none.
    """
    wanted = {word.strip().casefold() for word in words}
    found: set[int] = set()
    for word in (word.strip() for word in words):
        for spelling in {word, word.lower(), word.upper(), word.capitalize()}:
            for text in (spelling, " " + spelling):
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                found.update(ids if len(ids) == 1 else ())
            # Tokens that text alone does not lead to: SentencePiece puts a space before every text.
            for mark in ("", "\u0120", "\u2581"):
                token = tokenizer.convert_tokens_to_ids(mark + spelling)
                found.update(() if token is None else (token,))
    # What is unknown to the tokenizer comes back as its unknown token, which spells something else.
    found = {i for i in found if tokenizer.decode([i]).strip().casefold() in wanted}
    if not found:
        raise RewardError(
            f"the tokenizer has no token for {' or '.join(map(repr, words))}, in any spelling, so that this base "
            "cannot answer a rubric; give other words, use a base with a larger vocabulary, or leave the rubric out"
        )
    return sorted(found)


def _prompts(model: "LatentModel", text: list[int], options: RubricOptions) -> list[list[int]]:
    """Token ids of each question about a text, joined as ids, so that what was written is read as it was written."""
    if text and text[-1] == model.tokenizer.eos_token_id:
        text = text[:-1]
    text = text[-(options.max_tokens or model.latent_config.max_context) :]
    head, _, tail = options.template.partition("{text}")
    prompts = []
    for item in options.questions:
        before, behind = (model.to_ids(part.replace("{question}", item.question)) for part in (head, tail))
        prompts.append([*before, *text, *behind])
    return prompts
