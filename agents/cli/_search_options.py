"""The options of `steer write` for searching: what they are called, and what they make of a search."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from agents.cli._write_options import WriteOptions
    from steer.models.latent_model import LatentModel
    from steer.rewards.config import RewardsConfig
    from steer.search.action import Action
    from steer.search.budget import Budget
    from steer.search.searched import SearchResult
    from steer.search.tree import Tree

PANEL = "Search (--method search, guided-search)"
BUDGET = 16


# The policies of `steer.search.policies`, named here so that `--help` needs no torch.
Policy = Literal["best_of_n", "beam", "smc", "weave", "mcts", "gumbel"]


def _option(name: str, help: str, **more: Any) -> Any:
    return typer.Option(name, help=help, rich_help_panel=PANEL, show_default=False, **more)


@dataclass(frozen=True)
class SearchOptions:
    """What the command line says about searching, as it was typed; see `Search` for what it means."""

    policy: Annotated[Policy | None, _option("--policy", "How the budget is spent; mcts if not given.")] = None
    policy_option: Annotated[
        list[str] | None, _option("--policy-option", "Of the policy, such as expand=8.", metavar="NAME=VALUE")
    ] = None
    budget: Annotated[
        int | None, _option("--budget", f"Each span may cost N spans; {BUDGET} if not given.", metavar="N", min=1)
    ] = None
    budget_tokens: Annotated[
        int | None, _option("--budget-tokens", "Tokens that a text may cost, drafts included.", metavar="N", min=1)
    ] = None
    budget_nodes: Annotated[
        int | None, _option("--budget-nodes", "Spans that a text may cost, drafts not counted.", metavar="N", min=1)
    ] = None
    budget_seconds: Annotated[
        float | None,
        _option("--budget-seconds", "Time limit. What comes out then depends on the machine.", metavar="S"),
    ] = None
    menu: Annotated[
        list[str] | None,
        _option(
            "--menu",
            "A way of writing a span; strength 0 is unguided. Give several; 1 and 0.7 if none.",
            metavar="STRENGTH[:SCALE[:TEMPERATURE]]",
        ),
    ] = None
    rewards: Annotated[Path | None, _option("--rewards", "YAML file that says what is good.")] = None
    tree: Annotated[Path | None, _option("--tree", "Save the tree (.safetensors); with --batch a folder of them.")] = (
        None
    )
    go_on: Annotated[Path | None, _option("--go-on", "Go on with a saved tree; only policy and budget may differ.")] = (
        None
    )

    def given(self) -> list[str]:
        """The options that were given, as they are typed."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value not in (None, [])]


@dataclass(frozen=True)
class Search:
    """A search that is ready to run.

    Attributes:
        how: how spans are written.
        policy, policy_options: see `steer.search.policies`.
        times: ceiling of tokens, in multiples of those of the text; tokens: in tokens. At most one of them.
        nodes, seconds: further ceilings.
        menu: ways of writing a span.
        rewards: what is good, or None for the default.
    """

    how: "WriteOptions"
    policy: str
    policy_options: Mapping[str, Any]
    times: int | None
    tokens: int | None
    nodes: int | None
    seconds: float | None
    menu: "tuple[Action, ...]"
    rewards: "RewardsConfig | None"

    def budget(self, model: "LatentModel") -> "Budget":
        """What a text may cost."""
        from steer.search.budget import Budget

        tokens = self.tokens if self.times is None else self.times * self.how.spans * model.span_tokens
        return Budget(tokens, self.nodes, self.seconds)

    def chosen_rewards(self, model: "LatentModel", has_terminal: bool) -> "RewardsConfig":
        """What is good, the default filled in."""
        from steer.rewards import default_rewards

        return self.rewards or default_rewards(has_terminal, getattr(model, "reach", None) is not None)

    def run(
        self,
        model: "LatentModel",
        contexts: Sequence[str],
        terminals: Sequence[str],
        seeds: Sequence[int],
        on_progress: Callable[[int, int | None], None],
        tree: "Tree | None" = None,
    ) -> "list[SearchResult]":
        """Search behind all contexts side by side.

        Ctrl-C ends it with what was found by then, and with the status `interrupted`.

        Args:
            contexts: visible texts.
            terminals: one per context; may be empty where nothing guides.
            seeds: one per context.
            on_progress: is told the tokens generated so far, and how many there can be (None: not known).
            tree: of an earlier search to go on with.
        """
        from steer.search.config import SearchConfig
        from steer.search.searched import write_searched

        return write_searched(
            model,
            list(contexts),
            terminals=model.encode(list(terminals), long=self.how.how_long) if terminals else None,
            seeds=list(seeds),
            config=self.how.config(),
            search=SearchConfig(
                budget=self.budget(model),
                policy=self.policy,
                policy_options=self.policy_options,
                menu=self.menu,
                rewards=self.chosen_rewards(model, bool(terminals)),
            ),
            tree=tree,
            on_progress=on_progress,
        )


def make_search(options: SearchOptions, how: "WriteOptions") -> Search | None:
    """The search that a command asks for, None where it asks for none. It is checked as far as that needs no model.

    Raises:
        typer.BadParameter: options that contradict each other or cannot be read.
        SteerError: a value out of range, an unknown option of the policy, or rewards that make no sense.
    """
    if not how.searches:
        if given := options.given():
            raise typer.BadParameter(
                f"{given[0]} belongs to --method search or guided-search; got --method {how.method}"
            )
        return None
    _check(options, how)
    from steer.rewards import load_rewards
    from steer.search.policies import make_policy

    policy = options.policy or "mcts"
    policy_options = dict(_policy_option(text) for text in options.policy_option or ())
    make_policy(policy, policy_options)
    how.config()  # checks itself
    unlimited = (options.budget_tokens, options.budget_nodes, options.budget_seconds) == (None, None, None)
    return Search(
        how=how,
        policy=policy,
        policy_options=policy_options,
        times=BUDGET if unlimited and options.budget is None else options.budget,
        tokens=options.budget_tokens,
        nodes=options.budget_nodes,
        seconds=options.budget_seconds,
        menu=_menu(options.menu or (), how),
        rewards=None if options.rewards is None else load_rewards(options.rewards),
    )


def _check(options: SearchOptions, how: "WriteOptions") -> None:
    guided = how.guided
    if how.temperature == 0 and not guided:
        raise typer.BadParameter("--temperature 0 writes one text only; a search compares several: give one above 0")
    if options.budget is not None and options.budget_tokens is not None:
        raise typer.BadParameter("--budget and --budget-tokens both limit the tokens; give one of them")
    if guided and how.drafts == "write" and options.budget == 1:
        raise typer.BadParameter("--budget 1: a guided span costs a draft and a span; guided-search needs at least 2")
    seconds = options.budget_seconds
    if seconds is not None and not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"--budget-seconds is above 0; got {seconds:g}")


def _policy_option(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise typer.BadParameter(f"--policy-option {text}: expected NAME=VALUE, such as expand=8")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value.strip()


def _menu(texts: Sequence[str], how: "WriteOptions") -> "tuple[Action, ...]":
    from steer.search.action import Action
    from steer.search.config import UNGUIDED_MENU, guided_menu

    guided = how.guided
    if not texts:
        return guided_menu(how.guidance_scale) if guided else UNGUIDED_MENU
    menu = []
    for text in texts:
        try:
            numbers = [float(part) for part in text.split(":")]
        except ValueError:
            numbers = []
        if not 1 <= len(numbers) <= 3:
            raise typer.BadParameter(f"--menu {text}: expected STRENGTH, STRENGTH:SCALE or STRENGTH:SCALE:TEMPERATURE")
        if numbers[0] != 0 and not guided:
            raise typer.BadParameter(f"--menu {text} pulls, but --method search writes unguided; use guided-search")
        menu.append(Action(numbers[0], *(numbers[1:2] or [how.guidance_scale]), *numbers[2:]))
    return tuple(menu)
