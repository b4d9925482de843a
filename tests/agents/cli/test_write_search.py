"""`steer write --method search` and `guided-search`: one text and batches, budgets, trees, Ctrl-C, refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from agents.cli._search_options import Policy
from steer.search import driver
from steer.search.policies import POLICIES
from steer.search.tree_file import load_tree
from tests.agents.cli.kit import SPAN, document, error_line, load, save, steer, write_batch

ONE = ("write", "-c", "The fox ran. ", "-n", 2, "--policy", "best_of_n", "--budget", 4)
TO = ("-t", "A fox.")
GUIDED = (*ONE, *TO, "--method", "guided-search")
SEARCH = (*ONE, "--method", "search")
PAIRS = [{"id": i, "context": f"The {a} ran. ", "terminal": f"A {a}."} for i, a in enumerate(("fox", "hen", "owl"))]


@pytest.fixture(scope="module")
def model(saved: Path) -> Path:
    return saved


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(tmp_path / "pairs.jsonl", PAIRS)


def batch(source: Path, out: Path, model: Path, *more: object) -> Any:
    return write_batch(source, out, model, "--method", "guided-search", "--policy", "best_of_n", "--budget", 4, *more)


@pytest.fixture
def press(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Ctrl-C in the batch of spans of this number, counted from 1; what is searched later is left alone."""

    def arm(number: int) -> None:
        real, seen = driver._round, []

        def round_(*args: Any) -> None:
            seen.append(args)
            if len(seen) == number:
                raise KeyboardInterrupt
            real(*args)

        monkeypatch.setattr(driver, "_round", round_)

    return arm


# -- one text ----------------------------------------------------------------------------------------------------------


def test_the_best_text_is_printed_and_json_tells_the_rest(model: Path) -> None:
    answer = document(steer(*GUIDED, "-m", model, "--json"))
    assert (answer["method"], answer["policy"], answer["status"], answer["finished"]) == (
        "guided-search",
        "best_of_n",
        "finished",
        True,
    )
    assert len(answer["spans"]) == 2 and "".join(answer["spans"]) == answer["text"]
    assert set(answer["components"]) == {"similarity", "similarity_now", "fluency", "repetition"}
    assert 0 < answer["spent"]["tokens"] <= 4 * 2 * SPAN and answer["spent"]["nodes"] > 2
    result = steer(*GUIDED, "-m", model)
    assert (result.stdout, result.stderr) == (answer["text"] + "\n", "")


@pytest.mark.parametrize("policy", get_args(Policy))
def test_every_policy_can_be_named(model: Path, policy: str) -> None:
    assert list(get_args(Policy)) == list(POLICIES)
    answer = document(steer(*SEARCH, *TO, "--policy", policy, "-m", model, "--json"))
    assert answer["finished"] and answer["spent"]["tokens"] == answer["spent"]["nodes"] * SPAN <= 4 * 2 * SPAN


def test_options_reach_the_search(model: Path, tmp_path: Path) -> None:
    (tmp_path / "rewards.yaml").write_text("fluency: 1.0\n", encoding="utf-8")
    tree = tmp_path / "tree.safetensors"
    more = ("--policy", "beam", "--policy-option", "width=1", "--policy-option", "expand=3")
    menu = ("--menu", "0", "--menu", "0.5:1", "--menu", "1:2:0.9")
    options = (*more, *menu, "--rewards", tmp_path / "rewards.yaml", "--tree", tree, "--schedule", "linear")
    answer = document(
        steer(*GUIDED, *options, "--weight", 0.5, "--guidance-scale", 3, "--budget", 12, "-m", model, "--json")
    )
    assert set(answer["components"]) == {"fluency"}
    _, record = load_tree(tree)
    assert record["policy_options"] == {"width": 1, "expand": 3}
    assert [tuple(item.values()) for item in record["menu"]] == [(0.0, 3.0, None), (0.5, 1.0, None), (1.0, 2.0, 0.9)]
    assert record["schedule"] == {"name": "linear", "start": None, "end": 0.5}
    assert (record["model"], record["terminals"], record["status"]) == (str(model), ["A fox."], ["finished"])
    assert record["budget"] == {"tokens": 12 * 2 * SPAN, "nodes": None, "seconds": None}


def test_without_a_terminal_the_readable_is_searched_for(model: Path) -> None:
    assert set(document(steer(*SEARCH, "-m", model, "--json"))["components"]) == {"fluency", "repetition"}


def test_an_unfinished_text_is_said_to_be_unfinished(model: Path) -> None:
    fixed = ("write", "-c", "The fox ran. ", *TO, "-n", 3, "--method", "search", "-m", model)
    result = steer(*fixed, "--budget-nodes", 2)
    assert result.exit_code == 0 and result.stdout.strip()
    assert "unfinished (short): 2 of 3 spans, its budget was too small" in result.stderr
    wasteful = steer(*fixed, "--budget-nodes", 4, "--policy", "smc", "--policy-option", "particles=1", "-n", 5)
    assert "4 of 5 spans" in wasteful.stderr and "try " in wasteful.stderr
    answer = document(steer(*fixed, "--budget-tokens", SPAN, "--json"))
    assert (answer["finished"], len(answer["spans"])) == (False, 1)
    nothing = steer(*fixed, "--method", "guided-search", "--budget-tokens", SPAN)
    assert "not one span was written: its budget was too small" in error_line(nothing)


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


def test_ctrl_c_prints_the_best_so_far(model: Path, press: Callable[[int], None], tmp_path: Path) -> None:
    press(3)
    long = ("-n", 3, "--policy", "mcts")
    result = steer(*SEARCH, *TO, *long, "-m", model, "--json", "--tree", tmp_path / "tree.safetensors")
    assert result.exit_code == 130
    answer = json.loads(result.stdout)
    assert answer["status"] == "interrupted" and answer["text"]
    assert "interrupted: this is the best" in result.stderr
    assert load_tree(tmp_path / "tree.safetensors")[1]["status"] == ["interrupted"]


def test_ctrl_c_before_anything_was_found(model: Path, press: Callable[[int], None]) -> None:
    press(1)
    result = steer(*SEARCH, "-m", model)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")


def test_ctrl_c_in_a_batch_keeps_what_is_whole(
    model: Path, source: Path, tmp_path: Path, press: Callable[[int], None]
) -> None:
    whole, stopped = tmp_path / "whole.jsonl", tmp_path / "stopped.jsonl"
    assert batch(source, whole, model).exit_code == 0
    press(4)  # the second batch of spans in the second group
    result = batch(source, stopped, model)
    assert result.exit_code == 130
    assert [line["id"] for line in load(stopped)] == [0, 1]
    assert batch(source, stopped, model).exit_code == 0
    assert stopped.read_bytes() == whole.read_bytes()


# -- trees -------------------------------------------------------------------------------------------------------------


def test_a_tree_is_not_replaced_unasked(model: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree.safetensors"
    assert f"spans saved to {tree}" in steer(*GUIDED, "-m", model, "--tree", tree).stderr
    before = tree.read_bytes()
    assert "--tree" in error_line(steer(*GUIDED, "-m", model, "--tree", tree))
    assert tree.read_bytes() == before
    assert steer(*GUIDED, "-m", model, "--tree", tree, "--overwrite", "--seed", 1).exit_code == 0
    assert tree.read_bytes() != before


def test_going_on_gives_what_a_larger_budget_gives(model: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree.safetensors"
    assert steer(*SEARCH, *TO, "-m", model, "--tree", tree).exit_code == 0
    small = load_tree(tree)[0].size
    more = (*SEARCH, *TO, "--budget", 8, "-m", model, "--json")
    on = document(steer(*more, "--go-on", tree, "--tree", tree))
    direct = document(steer(*more, "--tree", tmp_path / "direct.safetensors"))
    assert (on["text"], on["value"]) == (direct["text"], direct["value"])
    assert on["spent"]["nodes"] == direct["spent"]["nodes"]
    grown, fresh = load_tree(tree)[0], load_tree(tmp_path / "direct.safetensors")[0]
    assert small < grown.size == fresh.size
    assert np.array_equal(np.sort(grown.key[: grown.size]), np.sort(fresh.key[: fresh.size]))


def test_an_interrupted_search_goes_on_to_the_same_end(
    model: Path, tmp_path: Path, press: Callable[[int], None]
) -> None:
    tree, options = tmp_path / "tree.safetensors", (*GUIDED, "--policy", "mcts", "--budget", 8, "-n", 3, "-m", model)
    whole = document(steer(*options, "--json"))
    press(3)
    assert steer(*options, "--tree", tree).exit_code == 130
    again = document(steer(*options, "--go-on", tree, "--json"))
    for answer in (whole, again):
        del answer["spent"]["seconds"]
    assert again == whole


def test_going_on_with_another_policy(model: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree.safetensors"
    first = document(steer(*SEARCH, *TO, "-m", model, "--tree", tree, "--json"))
    second = document(steer(*SEARCH, *TO, "-m", model, "--go-on", tree, "--policy", "beam", "--json"))
    assert second["value"] >= first["value"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--seed", 1), r"was made with seeds [0], not [1]"),
        (("-t", "A hen."), 'was made with terminals ["A fox."], not ["A hen."]'),
        (("--menu", 1), "was made with menu"),
        (("--temperature", 0.9), "was made with sampling"),
        (("-n", 3), "was made with spans 2, not 3"),
        (("-c", "The hen. "), "the tree to go on with is of"),
    ],
)
def test_going_on_with_something_else_is_refused(
    model: Path, tmp_path: Path, changes: tuple[object, ...], message: str
) -> None:
    tree = tmp_path / "tree.safetensors"
    assert steer(*GUIDED, "-m", model, "--tree", tree).exit_code == 0
    assert message in error_line(steer(*GUIDED, *changes, "-m", model, "--go-on", tree))


def test_going_on_with_another_model_is_refused(model: Path, tiny_llama: Path, tmp_path: Path) -> None:
    from steer.models.checkpoint import save as save_model
    from tests.steer.tiny import tiny_model

    save_model(tiny_model(tiny_llama, span_tokens=SPAN, z_dim=6, seed=1), tmp_path / "other", with_base=True)
    tree = tmp_path / "tree.safetensors"
    assert steer(*GUIDED, "-m", model, "--tree", tree).exit_code == 0
    assert "was made with another model" in error_line(steer(*GUIDED, "-m", tmp_path / "other", "--go-on", tree))
    (tmp_path / "no.safetensors").write_bytes(b"no")
    assert "is truncated" in error_line(steer(*GUIDED, "-m", model, "--go-on", tmp_path / "no.safetensors"))


# -- batches -----------------------------------------------------------------------------------------------------------


def test_batches_tell_values_and_keep_trees(model: Path, source: Path, tmp_path: Path) -> None:
    out, trees = tmp_path / "out.jsonl", tmp_path / "trees"
    answer = document(batch(source, out, model, "--tree", trees, "--json"))
    assert (answer["lines"], answer["written"]) == (3, 3)
    for line, pair in zip(load(out), PAIRS, strict=True):
        assert list(line) == [*pair, "text", "spans", "search", "written_with"]
        assert line["search"]["finished"] and line["search"]["spent"].keys() >= {"tokens", "nodes"}
    names = [path.name for path in sorted(trees.iterdir())]
    assert names == ["lines-000001.safetensors", "lines-000003.safetensors"]
    tree, record = load_tree(trees / names[0])
    assert (len(tree.roots), record["ids"], record["terminals"]) == (2, [0, 1], ["A fox.", "A hen."])
    # Finished, so nothing is done; begun anew, the trees must be asked for.
    assert batch(source, out, model, "--tree", trees).exit_code == 0
    assert "holds trees already" in error_line(batch(source, tmp_path / "new.jsonl", model, "--tree", trees))
    assert batch(source, out, model, "--tree", trees, "--overwrite").exit_code == 0


def test_a_row_depends_on_its_id_alone(model: Path, source: Path, tmp_path: Path) -> None:
    batch(source, tmp_path / "all.jsonl", model)
    batch(save(tmp_path / "two.jsonl", [PAIRS[2], PAIRS[0]]), tmp_path / "some.jsonl", model)
    every = {line["id"]: line["text"] for line in load(tmp_path / "all.jsonl")}
    assert {line["id"]: line["text"] for line in load(tmp_path / "some.jsonl")} == {k: every[k] for k in (0, 2)}


def test_unfinished_lines_are_counted(model: Path, source: Path, tmp_path: Path) -> None:
    fixed = ("write", "--batch", source, "-m", model, "-n", 2, "--method", "search", "--budget-nodes", 1)
    result = steer(*fixed, "--out", tmp_path / "out.jsonl")
    assert result.exit_code == 0 and "3 texts are unfinished" in result.stderr
    assert [line["search"]["finished"] for line in load(tmp_path / "out.jsonl")] == [False] * 3


def test_unguided_searches_need_no_terminals_but_none_or_all(model: Path, tmp_path: Path) -> None:
    def run(pairs: list[dict[str, Any]]) -> Any:
        fixed = ("write", "--batch", save(tmp_path / "in.jsonl", pairs), "--out", tmp_path / "out.jsonl", "--overwrite")
        return steer(*fixed, "-m", model, "-n", 1, "--method", "search", "--budget", 2)

    plain = [{"id": 1, "context": "The fox. "}, {"id": 2, "context": "The hen. ", "search": "mine"}]
    assert run(plain).exit_code == 0
    assert load(tmp_path / "out.jsonl")[1]["search"]["components"].keys() == {"fluency", "repetition"}
    assert 'line 1: expected a "terminal"' in error_line(run([plain[0], PAIRS[0] | {"id": 3}]))


def test_other_methods_pass_a_field_of_that_name_on(model: Path, tmp_path: Path) -> None:
    source = save(tmp_path / "in.jsonl", [PAIRS[0] | {"search": "mine"}])
    fixed = ("write", "--batch", source, "--out", tmp_path / "out.jsonl", "-m", model, "-n", 1)
    for _ in range(2):
        assert steer(*fixed).exit_code == 0
        assert load(tmp_path / "out.jsonl")[0]["search"] == "mine"


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--method", "annealed", "-t", "B"), "--policy belongs to --method search or"),
        (("--method", "guided-search"), "needs --terminal"),
        (("--method", "search", "--policy", "a_star"), "a_star"),
        (("--method", "search", "--policy-option", "width"), "expected NAME=VALUE"),
        (("--method", "search", "--menu", "0:x"), "expected STRENGTH, STRENGTH:SCALE"),
        (("--method", "search", "--menu", "0:1:1:1"), "expected STRENGTH, STRENGTH:SCALE"),
        (("--method", "search", "--menu", "0.5"), "use guided-search"),
        (("--method", "search", "--budget-tokens", "9"), "give one of them"),
        (("--method", "guided-search", "-t", "B", "--budget", "1"), "at least 2"),
        (("--method", "search", "--budget-seconds", "0"), "above 0"),
        (("--method", "search", "--temperature", "0"), "give one above 0"),
        (("--method", "search", "--schedule", "linear"), "--schedule belongs to"),
        (("--method", "search", "--weight", "1"), "mixes none"),
        (("--method", "search", "--overwrite"), "belong to --batch"),
    ],
)
def test_wrong_usage(options: tuple[str, ...], message: str) -> None:
    result = steer(*ONE, *options, "-m", "none")
    assert result.exit_code == 2
    # The box around the message breaks lines.
    assert message in " ".join(result.stderr.replace("\u2502", " ").split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--policy-option", "expand=4"), "BestOfNConfig: expand: unknown key; expected n"),
        (("--policy-option", "n=0"), "n: Input should be greater than or equal to 1 (got 0)"),
        (("--menu", "101"), "strength lies in [0, 100]"),
        (("--rewards", "none.yaml"), "none.yaml"),
    ],
)
def test_bad_values_are_told_before_the_model_is_loaded(options: tuple[str, ...], message: str) -> None:
    assert message in error_line(steer(*GUIDED, *options, "-m", "no such model"))


def test_rewards_that_lack_what_they_look_at(model: Path, tmp_path: Path) -> None:
    (tmp_path / "rewards.yaml").write_text("similarity: 1.0\n", encoding="utf-8")
    message = error_line(steer(*SEARCH, "-m", model, "--rewards", tmp_path / "rewards.yaml"))
    assert "'similarity' needs terminals" in message


def test_batches_go_on_by_themselves(source: Path, tmp_path: Path) -> None:
    result = batch(source, tmp_path / "out.jsonl", tmp_path, "--go-on", tmp_path / "tree.safetensors")
    assert result.exit_code == 2 and "goes on by itself" in " ".join(result.stderr.replace("\u2502", " ").split())
