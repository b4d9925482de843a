"""Nodes per second of a tree search: pages per node, against `generate` and against a cache that is copied.

Three arms write the same number of tokens with the same weights (the router's) behind the same paths, in turn:

- pages: `PagedEngine.write` for P leaves times K children, which are added to the tree and keep their pages;
- generate: `generate(num_return_sequences=K)` of transformers, which computes each path again;
- copied cache: the path's `DynamicCache` is kept, copied and repeated K times (`batch_repeat_interleave`), then a plain
  loop draws with the processors of transformers. The last token and the soft tokens are read before it is repeated.

The other arms take all leaves at once or one by one, whichever was faster in a trial round. A path of length L is half
prompt, half spans, L visible tokens in all; the model's soft tokens come on top. Times are medians over rounds, ratios
medians of the ratios within a round. Further: the memory that a node adds, forward tokens per sampled token, how much
slower deep nodes are than shallow ones, and whether children see what a whole pass sees. All of this is about speed:
paths may be longer than what the model was trained on. On a busy machine, wall time says little:
`OMP_NUM_THREADS=1 ... --clock cpu` counts this process's own processor time instead.

Targets are compared in words at the end; the exit code is 0 whatever comes out. By default it takes some two minutes;
what is measured now is said on stderr.

    python benchmarks/search_throughput.py --json search_throughput.json
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from _progress import say
from _search_rivals import TEMPERATURE, TOP_P, read_path, rivals
from torch import Tensor

from steer import LatentModel, SamplingConfig, packaged_model
from steer.models.adapters import ROUTER
from steer.noise import child_key
from steer.search.engines.base import SpanRequest
from steer.search.engines.paged import PagedEngine
from steer.search.tree import Tree
from steer.writing.limits import Limits

SHORT_PROMPT, DEPTH_FANOUT = 16, 16
# What is aimed at, and where: path length and fan-out of the two ratios.
TARGET_LENGTH, TARGET_FANOUT = 512, 16
ARMS = ("pages", "generate", "copied cache")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


# -- scenes ------------------------------------------------------------------------------------------------------------


def open_paged(model: Any) -> PagedEngine:
    """An engine over an empty tree. Stories do not end, so that every arm writes the same number of tokens."""
    tree = Tree(model.span_tokens, model.latent_config.z_dim)
    sampling = SamplingConfig(temperature=TEMPERATURE, top_p=TOP_P)
    return PagedEngine(model, tree, sampling=sampling, limits=Limits(may_end=False))


def random_ids(model: Any, count: int, generator: torch.Generator) -> list[int]:
    """Visible tokens; what they say does not matter here."""
    return torch.randint(10, model.latent_config.base.vocab_size, (count,), generator=generator).tolist()


def random_latents(model: Any, rows: int, generator: torch.Generator) -> Tensor:
    """Latents `[rows, z_dim]` of the usual norm."""
    z = torch.nn.functional.normalize(torch.randn(rows, model.latent_config.z_dim, generator=generator), dim=1)
    return z * (model.latent_config.latent_norm or 10.0)


def add_paths(
    engine: PagedEngine, length: int, leaves: int, rounds: int, generator: torch.Generator
) -> list[list[int]]:
    """Leaves for each round, with `length` visible tokens before their children, on `leaves` paths that share a root.

    Every round has leaves of its own, so that none has children yet.
    """
    model, tree = engine.model, engine.tree
    spans = max(1, length // 2 // tree.span_tokens)

    def grow(parent: int, index: int) -> int:
        z = random_latents(model, 1, generator)[0].numpy()
        return tree.add(parent, index, random_ids(model, tree.span_tokens, generator), written_from=z)

    root = tree.add_root(random_ids(model, length - spans * tree.span_tokens, generator), seed=0, horizon=10**6)
    trunks = [root] * leaves
    for _ in range(spans - 1):
        trunks = [grow(trunk, path) for path, trunk in enumerate(trunks)]
    return [[grow(trunk, turn * leaves + path) for path, trunk in enumerate(trunks)] for turn in range(rounds)]


def path_embeds(model: Any, tree: Tree, leaves: Sequence[int], z: Tensor) -> Tensor:
    """All that stands before the children of each leaf, `[P, L, d]`: contexts, soft tokens and spans."""
    rows = []
    for row, leaf in enumerate(leaves):
        parts = [model.embed(torch.tensor([tree.context(leaf)], device=model.device))]
        for node in tree.path(leaf):
            parts.append(model.soft(torch.as_tensor(tree.written_from[node][None])))
            parts.append(model.embed(torch.tensor([tree.span(node)], device=model.device)))
        rows.append(torch.cat([*parts, model.soft(z[row : row + 1])], dim=1))
    return torch.cat(rows)


# -- arms --------------------------------------------------------------------------------------------------------------


def expand(engine: PagedEngine, leaves: Sequence[int], z: Tensor, fanout: int) -> list[int]:
    """K children of each leaf, in the tree and with their pages."""
    tree = engine.tree
    requests = [(leaf, index) for leaf in leaves for index in range(fanout)]
    seeds = [child_key(int(tree.key[leaf]), index) for leaf, index in requests]
    latents = z.repeat_interleave(fanout, dim=0)
    draw = engine.write(SpanRequest([leaf for leaf, _ in requests], seeds, latents))
    nodes = [
        tree.add(leaf, index, span, written_from=latent)
        for (leaf, index), span, latent in zip(requests, draw.spans, latents.numpy(), strict=True)
    ]
    engine.commit(draw, range(len(nodes)), nodes)
    return nodes


# -- measuring ---------------------------------------------------------------------------------------------------------


def seconds(clock: str, device: torch.device, run: Callable[[], Any]) -> tuple[float, Any]:
    """Time that a call took, and what it returned."""

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return CLOCKS[clock]()

    start = now()
    result = run()
    return now() - start, result


def measure(model: Any, length: int, leaves: int, fanout: int, rounds: int, clock: str = "wall") -> dict[str, Any]:
    """One row of the table: the three arms in turn, on new leaves in each round.

    A round before the first warms up, and decides whether the other arms take all leaves at once or one by one.
    """
    say(f"{model.dtype}, paths of {length} tokens, {leaves} of them, {fanout} children each")
    generator = torch.Generator().manual_seed(0)
    engine = open_paged(model)
    tree, size = engine.tree, model.span_tokens
    z = random_latents(model, leaves, generator)
    nodes = leaves * fanout
    warm_up, *turns = add_paths(engine, length, leaves, rounds + 1, generator)

    def prepare(chosen: list[int]) -> Tensor:
        # In a search the leaves' pages are there: their own expansion left them. A draft is not kept.
        engine.write(SpanRequest(chosen, [0] * leaves, z), draft=True)
        return path_embeds(model, tree, chosen, z)

    embeds = prepare(warm_up)
    forwarded, held = engine.forward_tokens, engine.prefix.pool.used_bytes
    children = expand(engine, warm_up, z, fanout)
    per_token = (engine.forward_tokens - forwarded) / (nodes * size)
    page = (engine.prefix.pool.used_bytes - held) / nodes
    assert all(tree.n_tokens[child] == size for child in children)
    engine.prefix.pool.release(children)
    # Any: a layer of the library's union of kinds may have neither keys nor values.
    layers: list[Any] = read_path(model.fused(ROUTER), embeds[:1]).layers
    own = sum(layer.keys.nbytes + layer.values.nbytes for layer in layers) / embeds.shape[1] * size
    tried: dict[str, dict[int, float]] = {arm: {} for arm in ARMS[1:]}
    for per_call in sorted({1, leaves}):
        for arm, run in rivals(model, embeds, fanout, per_call).items():
            tried[arm][per_call], written = seconds(clock, model.device, run)
            assert written.shape == (nodes, size), f"{arm} wrote {list(written.shape)}, not {[nodes, size]}"
    fastest = {arm: min(took, key=lambda n, took=took: took[n]) for arm, took in tried.items()}

    times: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for turn, chosen in enumerate(turns):
        embeds = prepare(chosen)
        runs: dict[str, Callable[[], Any]] = {"pages": lambda c=chosen: expand(engine, c, z, fanout)}
        others = {per_call: rivals(model, embeds, fanout, per_call) for per_call in set(fastest.values())}
        runs |= {arm: others[per_call][arm] for arm, per_call in fastest.items()}
        for arm in (*ARMS[turn % 3 :], *ARMS[: turn % 3]):
            took, result = seconds(clock, model.device, runs[arm])
            times[arm].append(took)
            if arm == "pages":
                engine.prefix.pool.release(result)
    ratios = {
        arm: statistics.median(theirs / ours for theirs, ours in zip(times[arm], times["pages"], strict=True))
        for arm in ARMS[1:]
    }
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "length": length,
        "leaves": leaves,
        "fanout": fanout,
        "nodes_per_second": {arm: nodes / statistics.median(times[arm]) for arm in ARMS},
        "ratios": ratios,
        "leaves_per_call": fastest,
        "forward_tokens_per_sampled_token": per_token,
        "page_bytes": page,
        "span_bytes": own,
    }


def measure_depths(model: Any, depths: Sequence[int], rounds: int, clock: str = "wall") -> dict[int, float]:
    """Nodes per second of K children at each depth, along one path behind a short prompt."""
    say(f"{model.dtype}, depths to {max(depths)}")
    generator = torch.Generator().manual_seed(1)
    engine = open_paged(model)
    times: dict[int, list[float]] = {depth: [] for depth in depths}
    for turn in range(rounds + 1):
        node = engine.tree.add_root(random_ids(model, SHORT_PROMPT, generator), seed=turn, horizon=10**6)
        z = random_latents(model, 1, generator)
        engine.write(SpanRequest([node], [0], z), draft=True)  # the prompt is computed once, outside of the measurement
        for depth in range(1, max(depths) + 1):
            took, children = seconds(clock, model.device, lambda n=node, z=z: expand(engine, [n], z, DEPTH_FANOUT))
            if turn and depth in times:
                times[depth].append(took)
            engine.prefix.pool.release(children[1:])
            node = children[0]
    return {depth: DEPTH_FANOUT / statistics.median(times[depth]) for depth in depths}


@torch.inference_mode()
def difference(model: Any, depth: int, fanout: int) -> float:
    """Greatest difference between the logits that children were drawn from and those of one pass over all tokens.

    The path is written as a search writes it, so that errors of its pages would add up.
    """
    generator = torch.Generator().manual_seed(2)
    engine = open_paged(model)
    module = engine.prefix.module
    base = module.get_base_model() if hasattr(module, "get_base_model") else module
    seen: list[Tensor] = []
    # Copies: the engine forbids the end token in place.
    hook = base.register_forward_hook(
        lambda _module, _inputs, output: seen.append(output.logits[:, -1].float().clone())
    )
    node = engine.tree.add_root(random_ids(model, SHORT_PROMPT, generator), seed=0, horizon=10**6)
    worst = 0.0
    for _ in range(depth):
        z = random_latents(model, 1, generator)
        before = path_embeds(model, engine.tree, [node], z).expand(fanout, -1, -1)
        engine.write(SpanRequest([node], [0], z), draft=True)
        seen.clear()
        children = expand(engine, [node], z, fanout)
        drawn = torch.stack([logits.expand(fanout, -1) for logits in seen], dim=1)
        spans = torch.tensor([engine.tree.span(child) for child in children], device=model.device)
        whole = model.role_logits(ROUTER, torch.cat([before, model.embed(spans)], dim=1))
        worst = max(worst, float((drawn - whole[:, -spans.shape[1] - 1 : -1].float()).abs().max()))
        node = children[0]
    hook.remove()
    return worst


# -- reporting ---------------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, all columns right-aligned."""
    widths = [max(2, *(len(row[i]) for row in (head, *rows))) for i in range(len(head))]
    lines = [head, [f"{'-' * (width - 1)}:" for width in widths], *rows]
    return "\n".join("| " + " | ".join(x.rjust(w) for x, w in zip(line, widths, strict=True)) + " |" for line in lines)


def verdicts(report: dict[str, Any]) -> list[str]:
    """Each target in words, and whether it was reached."""
    lines = []

    def say(target: str, values: Sequence[float], reached: Callable[[float], bool], form: str) -> None:
        if not values:
            lines.append(f"- {target}: not measured")
            return
        worst = next((v for v in values if not reached(v)), None)
        span = form.format(min(values)) + ("" if len(values) == 1 else f" to {form.format(max(values))}")
        lines.append(f"- {target}: {'reached' if worst is None else 'MISSED'} ({span})")

    place = f"at L={TARGET_LENGTH}, K={TARGET_FANOUT}"
    for dtype, part in report["dtypes"].items():
        rows = part["rows"]
        chosen = [r for r in rows if (r["length"], r["fanout"]) == (TARGET_LENGTH, TARGET_FANOUT)]
        for arm, least in (("generate", 5), ("copied cache", 2)):
            ratios = [r["ratios"][arm] for r in chosen]
            say(f"{dtype}: at least {least} times {arm} {place}", ratios, lambda x, n=least: x >= n, "{:.2f}x")
        extra = [r["page_bytes"] / r["span_bytes"] - 1 for r in rows]
        say(f"{dtype}: a page at most 20 % over its span's keys and values", extra, lambda x: x <= 0.2, "{:.1%}")
        passes = [r["forward_tokens_per_sampled_token"] for r in rows]
        say(f"{dtype}: at most 1.1 forward tokens per sampled token", passes, lambda x: x <= 1.1, "{:.3f}")
        depths = part["depths"]
        first, last = min(depths), max(depths)
        drop = [] if (first, last) != (1, 12) else [1 - depths[last] / depths[first]]
        say(f"{dtype}: nodes/s drop by less than 30 % from depth 1 to 12", drop, lambda x: x < 0.3, "{:.1%}")
        if dtype == "float32":
            say(f"{dtype}: logits within 1e-4 of a whole pass", [part["difference"]], lambda x: x < 1e-4, "{:.1e}")
    return lines


def print_report(report: dict[str, Any]) -> None:
    """Tables and verdicts, in Markdown."""
    print(
        f"{report['model']}, spans of {report['span_tokens']}, {report['device']}, {report['threads']} threads, "
        f"torch {report['torch']}, transformers {report['transformers']}; nodes per second of {report['clock']} time\n"
    )
    head = ["dtype", "L", "P", "K", *ARMS, "x generate", "x copied", "forward/sampled"]
    rows = [row for part in report["dtypes"].values() for row in part["rows"]]
    cells = [
        [
            *(str(row[key]) for key in ("dtype", "length", "leaves", "fanout")),
            *(f"{row['nodes_per_second'][arm]:.1f}" for arm in ARMS),
            *(f"{row['ratios'][arm]:.2f}" for arm in ARMS[1:]),
            f"{row['forward_tokens_per_sampled_token']:.3f}",
        ]
        for row in rows
    ]
    print(table(head, cells), end="\n\n")
    depths = list(next(iter(report["dtypes"].values()))["depths"])
    head = ["dtype", *(f"depth {d}" for d in depths), "drop", "KiB/page", "KiB/span", "max logit difference"]
    cells = []
    for dtype, part in report["dtypes"].items():
        rates = list(part["depths"].values())
        row = part["rows"][-1]
        cells.append(
            [
                dtype,
                *(f"{rate:.1f}" for rate in rates),
                f"{1 - rates[-1] / rates[0]:.1%}",
                *(f"{row[key] / 1024:.0f}" for key in ("page_bytes", "span_bytes")),
                f"{part['difference']:.1e}",
            ]
        )
    print(f"Along one path behind {SHORT_PROMPT} tokens, P=1, K={DEPTH_FANOUT}:\n")
    print(table(head, cells), end="\n\n")
    print("Targets:\n")
    print("\n".join(verdicts(report)))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(packaged_model()))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--fanouts", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--leaves", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4, 8, 12])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", default="wall", choices=list(CLOCKS))
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--full", action="store_true", help="bfloat16 and paths of 1024 as well: some minutes more")
    parser.add_argument("--quick", action="store_true", help="a few seconds: that it runs, not how fast")
    args = parser.parse_args(argv)
    if args.full:
        args.dtypes, args.lengths = ["float32", "bfloat16"], [128, 512, 1024]
    if args.quick:
        args.dtypes, args.lengths, args.fanouts, args.leaves = ["float32"], [128], [4], [1, 2]
        args.depths, args.rounds = [1, 2], 1
    report: dict[str, Any] = {
        "model": Path(args.model).name,
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "rounds": args.rounds,
        "clock": args.clock,
        "dtypes": {},
    }
    for dtype in args.dtypes:
        options = {"dtype": getattr(torch, dtype), "device": args.device, "fuse": True}
        model = LatentModel.from_pretrained(args.model, **options).eval()
        report["span_tokens"] = model.span_tokens
        report["dtypes"][dtype] = {
            "rows": [
                measure(model, length, leaves, fanout, args.rounds, args.clock)
                for length in args.lengths
                for fanout in args.fanouts
                for leaves in args.leaves
            ],
            "depths": measure_depths(model, sorted(args.depths), args.rounds, args.clock),
            "difference": difference(model, max(args.depths), 4),
        }
    print_report(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
