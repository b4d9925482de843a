"""The options of `steer write` for searching: what they are called, and what they make of a search."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

PANEL = "Search (--method search, guided-search)"
BUDGET = 16


class Policy(StrEnum):
    """The policies of `steer.search.policies`, named here so that `--help` needs no torch."""

    BEST_OF_N = "best_of_n"
    BEAM = "beam"
    SMC = "smc"
    WEAVE = "weave"
    MCTS = "mcts"
    GUMBEL = "gumbel"


def _option(name: str, help: str, **more: Any) -> Any:
    return typer.Option(name, help=help, rich_help_panel=PANEL, show_default=False, **more)


PolicyOption = Annotated[Policy | None, _option("--policy", "How the budget is spent; mcts if not given.")]
PolicyOptionsOption = Annotated[
    list[str] | None, _option("--policy-option", "Of the policy, such as expand=8.", metavar="NAME=VALUE")
]
BudgetOption = Annotated[
    int | None, _option("--budget", f"Each span may cost N spans; {BUDGET} if not given.", metavar="N", min=1)
]
TokensOption = Annotated[
    int | None, _option("--budget-tokens", "Tokens that a text may cost, drafts included.", metavar="N", min=1)
]
NodesOption = Annotated[
    int | None, _option("--budget-nodes", "Spans that a text may cost, drafts not counted.", metavar="N", min=1)
]
SecondsOption = Annotated[
    float | None, _option("--budget-seconds", "Time limit. What comes out then depends on the machine.", metavar="S")
]
MenuOption = Annotated[
    list[str] | None,
    _option(
        "--menu",
        "A way of writing a span; strength 0 is unguided. Give several; 1 and 0.7 if none.",
        metavar="STRENGTH[:SCALE[:TEMPERATURE]]",
    ),
]
RewardsOption = Annotated[Path | None, _option("--rewards", "YAML file that says what is good.")]
TreeOption = Annotated[Path | None, _option("--tree", "Save the tree (.safetensors); with --batch a folder of them.")]
GoOnOption = Annotated[Path | None, _option("--go-on", "Go on with a saved tree; only policy and budget may differ.")]


@dataclass(frozen=True)
class SearchOptions:
    """What the command line says about searching, as it was typed; see `Search` for what it means."""

    policy: Policy | None = None
    policy_option: Sequence[str] | None = None
    budget: int | None = None
    budget_tokens: int | None = None
    budget_nodes: int | None = None
    budget_seconds: float | None = None
    menu: Sequence[str] | None = None
    rewards: Path | None = None
    tree: Path | None = None
    go_on: Path | None = None

    def given(self) -> list[str]:
        """The options that were given, as they are typed."""
        return [f"--{name.replace('_', '-')}" for name, value in vars(self).items() if value not in (None, [])]


@dataclass(frozen=True)
class Search:
    """A search that is ready to run.

    Attributes:
        guided: whether candidates are pulled towards the terminal.
        policy, policy_options: see `steer.search.policies`.
        times: ceiling of tokens, in multiples of those of the text; tokens: in tokens. At most one of them.
        nodes, seconds: further ceilings.
        spans: of a text.
        menu: `Action`s.
        schedule: `ScheduleConfig` of the pull.
        rewards: `RewardsConfig`, or None for the default ones.
        sampling: `SamplingConfig`.
        long: what is done with a terminal that is longer than a span.
        drafts: `write` or `head`.
    """

    guided: bool
    policy: str
    policy_options: Mapping[str, Any]
    times: int | None
    tokens: int | None
    nodes: int | None
    seconds: float | None
    spans: int
    menu: Sequence[Any]
    schedule: Any
    rewards: Any
    sampling: Any
    long: str
    drafts: str

    @property
    def method(self) -> str:
        """As `--method` has it."""
        return "guided-search" if self.guided else "search"

    def budget(self, model: Any) -> Any:
        """The `Budget` of a text."""
        from steer.search.budget import Budget

        tokens = self.tokens if self.times is None else self.times * self.spans * model.span_tokens
        return Budget(tokens, self.nodes, self.seconds)

    def chosen_rewards(self, model: Any, has_terminal: bool) -> Any:
        """The `RewardsConfig` in force."""
        from steer.rewards import default_rewards

        return self.rewards or default_rewards(has_terminal, getattr(model, "reach", None) is not None)

    def run(
        self,
        model: Any,
        contexts: Sequence[str],
        terminals: Sequence[str],
        seeds: Sequence[int],
        on_progress: Callable[[int, int | None], None],
        tree: Any = None,
    ) -> list[Any]:
        """Search behind all contexts side by side; a list of `SearchResult`.

        Ctrl-C ends it with what was found by then, and with the status `interrupted`.

        Args:
            model: a `LatentModel`.
            contexts: visible texts.
            terminals: one per context; may be empty where nothing guides.
            seeds: one per context.
            on_progress: is told the tokens generated so far, and how many there can be (None: not known).
            tree: of an earlier search to go on with.
        """
        from steer.search.searched import write_searched
        from steer.writing.limits import Limits

        return write_searched(
            model,
            list(contexts),
            terminals=model.encode(list(terminals), long=self.long) if terminals else None,
            spans=self.spans,
            policy=self.policy,
            policy_options=self.policy_options,
            budget=self.budget(model),
            seeds=list(seeds),
            sampling=self.sampling,
            menu=self.menu,
            schedule=self.schedule,
            drafts=self.drafts,  # pyright: ignore[reportArgumentType]  # one of the two, by the command's choices
            rewards=self.chosen_rewards(model, bool(terminals)),
            limits=Limits(plays=False),
            tree=tree,
            on_progress=on_progress,
        )


def make_search(
    options: SearchOptions,
    *,
    guided: bool,
    spans: int,
    scale: float,
    temperature: float,
    top_p: float,
    long: str,
    schedule: Any,
    drafts: str = "write",
) -> Search:
    """Check the options of a search, as far as that needs no model.

    Args:
        options: as given.
        guided: whether candidates are pulled towards a terminal.
        spans, scale, temperature, top_p, long, drafts: of the command.
        schedule: `ScheduleConfig` of the pull.

    Raises:
        typer.BadParameter: options that contradict each other or cannot be read.
        SteerError: a value out of range, an unknown option of the policy, or rewards that make no sense.
    """
    if temperature == 0 and not guided:
        raise typer.BadParameter("--temperature 0 writes one text only; a search compares several: give one above 0")
    if options.budget is not None and options.budget_tokens is not None:
        raise typer.BadParameter("--budget and --budget-tokens both limit the tokens; give one of them")
    if guided and drafts == "write" and options.budget == 1:
        raise typer.BadParameter("--budget 1: a guided span costs a draft and a span; guided-search needs at least 2")
    seconds = options.budget_seconds
    if seconds is not None and not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"--budget-seconds is above 0; got {seconds:g}")
    from steer.rewards import load_rewards
    from steer.search.policies import make_policy
    from steer.writing.sampling import SamplingConfig

    policy = (options.policy or Policy.MCTS).value
    policy_options = dict(_policy_option(text) for text in options.policy_option or ())
    make_policy(policy, policy_options)
    unlimited = (options.budget_tokens, options.budget_nodes, seconds) == (None, None, None)
    return Search(
        guided=guided,
        policy=policy,
        policy_options=policy_options,
        times=BUDGET if unlimited and options.budget is None else options.budget,
        tokens=options.budget_tokens,
        nodes=options.budget_nodes,
        seconds=seconds,
        spans=spans,
        menu=_menu(options.menu or (), guided, scale),
        schedule=schedule,
        rewards=None if options.rewards is None else load_rewards(options.rewards),
        sampling=SamplingConfig(temperature=temperature, top_p=top_p),
        long=long,
        drafts=drafts,
    )


def _policy_option(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise typer.BadParameter(f"--policy-option {text}: expected NAME=VALUE, such as expand=8")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value.strip()


def _menu(texts: Sequence[str], guided: bool, scale: float) -> tuple[Any, ...]:
    from steer.search.action import Action

    if not texts:
        return (Action(1.0, scale), Action(0.7, scale)) if guided else (Action(),)
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
        menu.append(Action(numbers[0], *(numbers[1:2] or [scale]), *numbers[2:]))
    return tuple(menu)
