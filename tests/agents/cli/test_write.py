"""`steer write`, one text and batches of them: what comes out, what is kept, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents.cli import _batch as batch
from agents.errors import InputError
from tests.agents.cli.kit import SPAN, document, error_line, load, save, steer, steer_process, write_batch

PAIRS = [
    {"id": f"p{i}", "context": f"The {animal} ran. ", "terminal": f"A {animal}.", "note": i}
    for i, animal in enumerate(("fox", "hen", "owl", "cat", "dog"))
]


@pytest.fixture(scope="module")
def model(saved: Path) -> Path:
    return saved


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return save(tmp_path / "pairs.jsonl", PAIRS)


# -- one text ----------------------------------------------------------------------------------------------------------


def test_the_result_is_the_written_part_alone(model: Path) -> None:
    options = ("-c", "The fox ran. ", "-t", "A fox.", "-n", 2, "-m", model)
    answer = document(steer("write", *options, "--json"))
    assert answer["text"] and "fox" not in answer["text"]
    assert len(answer["spans"]) == 2
    assert (answer["method"], answer["seed"], answer["terminal"]) == ("annealed", 0, "A fox.")
    assert steer("write", *options).stdout == answer["text"] + "\n"


def test_the_seed_and_the_method_decide(model: Path) -> None:
    def text(*options: object) -> str:
        fixed = ("write", "-c", "The fox. ", "-t", "A hen.", "-n", 3, "-m", model, "--json")
        return document(steer(*fixed, *options))["text"]

    assert text() == text("--seed", 0)
    texts = [
        text(),
        text("--seed", 1),
        text("--method", "fixed"),
        text("--method", "unguided"),
        text("--guidance-scale", 2),
    ]
    assert len(set(texts)) == len(texts)
    assert text("--method", "fixed", "--weight", 0) == text("--method", "unguided")
    assert text("--schedule", "bridge", "--weight", 1) == text()
    assert text("--schedule", "constant", "--weight", 0.5) == text("--method", "fixed")


def test_writing_agrees_with_the_library(model: Path) -> None:
    from steer.latents.pull import Pull
    from steer.latents.schedules import make_schedule
    from steer.models.latent_model import LatentModel
    from steer.writing.guided import write_guided
    from steer.writing.sampling import SamplingConfig

    loaded = LatentModel.from_pretrained(model)
    pull = Pull(loaded.encode(["A hen."]), make_schedule("cosine", 3))
    sampling = SamplingConfig(temperature=0.5, top_p=0.9)
    wanted = write_guided(
        loaded, ["The fox. "], pulls=[pull], spans=3, seeds=[5], sampling=sampling, guidance_scale=1.5
    )[0]
    options = ("--schedule", "cosine", "--temperature", 0.5, "--top-p", 0.9, "--seed", 5, "--guidance-scale", 1.5)
    answer = document(steer("write", "-c", "The fox. ", "-t", "A hen.", "-n", 3, "-m", model, "--json", *options))
    assert answer["spans"] == list(wanted.spans)


def test_the_context_comes_from_a_file_or_standard_input(model: Path, tmp_path: Path) -> None:
    context = tmp_path / "context.txt"
    context.write_text("The füchsin ran. ", encoding="utf-8")
    options = ("--method", "unguided", "-n", 1, "-m", model, "--json")
    answer = document(steer("write", "-c", "The füchsin ran. ", *options))
    assert document(steer("write", "--context-file", context, *options)) == answer
    assert document(steer("write", "--context-file", "-", *options, text="The füchsin ran. ")) == answer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-c", "A", "-t", "  "], "text to encode is empty"),
        (["-c", "A", "-t", "x" * (SPAN + 1)], f"does not fit a span of {SPAN}"),
        (["-c", "A\0B", "-t", "B"], "contains NUL"),
        (["-c", "A\udcff", "-t", "B"], "not valid Unicode"),
        (["--context-file", "no such file", "-t", "B"], "cannot read --context-file no such file"),
        (["-c", "A", "-t", "B", "--top-p", "2"], "top_p lies in"),
        (["-c", "A", "-t", "B", "--temperature", "1e-9"], "temperature is 0"),
        (["-c", "A", "-t", "B", "--schedule", "linear_bigvae", "--weight", "1"], "has no option end"),
    ],
)
def test_bad_input(model: Path, options: list[str], message: str) -> None:
    assert message in error_line(steer("write", "-m", model, *options))


def test_a_long_terminal_can_be_averaged(model: Path) -> None:
    long = "x" * (SPAN + 1)
    assert document(steer("write", "-c", "A", "-t", long, "-n", 1, "-m", model, "--long", "mean", "--json"))["text"]


def test_a_file_that_is_no_text(model: Path, tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"ab\xff")
    assert "is not UTF-8 (byte 2)" in error_line(steer("write", "--context-file", tmp_path / "bytes", "-t", "B"))


# -- batches -----------------------------------------------------------------------------------------------------------


def test_the_same_lines_come_back(model: Path, source: Path, tmp_path: Path) -> None:
    answer = document(write_batch(source, tmp_path / "out.jsonl", model, "--json"))
    assert (answer["lines"], answer["kept"], answer["written"]) == (5, 0, 5)
    lines = load(tmp_path / "out.jsonl")
    for line, pair in zip(lines, PAIRS, strict=True):
        assert {key: line[key] for key in pair} == pair
        assert list(line) == [*pair, "text", "spans", "written_with"]
        assert line["text"] and len(line["spans"]) == 2


def test_a_row_depends_on_its_id_and_not_on_its_neighbours(model: Path, source: Path, tmp_path: Path) -> None:
    write_batch(source, tmp_path / "all.jsonl", model)
    write_batch(save(tmp_path / "two.jsonl", [PAIRS[3], PAIRS[0]]), tmp_path / "some.jsonl", model)
    every = {line["id"]: line["text"] for line in load(tmp_path / "all.jsonl")}
    assert {line["id"]: line["text"] for line in load(tmp_path / "some.jsonl")} == {k: every[k] for k in ("p0", "p3")}


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a batch of all pairs writes where nothing stops it."""
    folder = tmp_path_factory.mktemp("whole")
    write_batch(save(folder / "pairs.jsonl", PAIRS), folder / "out.jsonl", model)
    return (folder / "out.jsonl").read_bytes()


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("torn", [b"", b'{"id": "p', None])
def test_a_stopped_batch_is_continued_to_the_same_bytes(
    model: Path, source: Path, whole: bytes, tmp_path: Path, cut: int, torn: bytes | None
) -> None:
    """`torn` is a half-written line; None stands for a whole line whose line break is missing."""
    out = tmp_path / "out.jsonl"
    lines = whole.splitlines(keepends=True)
    tail = torn if torn is not None else b"".join(lines[cut : cut + 1]).rstrip(b"\n")
    out.write_bytes(b"".join(lines[:cut]) + tail)
    result = write_batch(source, out, model)
    assert result.exit_code == 0, result.output
    assert (f"{cut} of 5 lines are there" in result.stderr) == (cut > 0)
    assert out.read_bytes() == whole


def test_a_finished_batch_needs_no_model(model: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    write_batch(source, out, model)
    before = out.read_bytes()
    assert write_batch(source, out, tmp_path / "no model").exit_code == 0
    assert out.read_bytes() == before


def test_lines_added_in_front_end_in_front(model: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    write_batch(save(tmp_path / "some.jsonl", PAIRS[2:]), out, model)
    kept = load(out)
    write_batch(source, out, model)
    assert [line["id"] for line in load(out)] == [pair["id"] for pair in PAIRS]
    assert load(out)[2:] == kept
    assert not list(tmp_path.glob("*.tmp"))


def test_overwrite_begins_again(model: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    write_batch(source, out, model)
    first = load(out)
    write_batch(source, out, model, "--seed", 1, "--overwrite")
    second = load(out)
    assert [line["id"] for line in second] == [line["id"] for line in first]
    assert all(a["text"] != b["text"] for a, b in zip(first, second, strict=True))


def test_each_line_is_on_the_disk_before_the_next_group(tmp_path: Path, source: Path) -> None:
    """A writer that dies in the second group leaves the whole first group behind."""
    pairs = batch.read_pairs(source, need_terminal=True)
    out = tmp_path / "out.jsonl"

    def dies(rows: Any) -> list[Any]:
        if rows[0].id != "p0":
            raise KeyboardInterrupt
        return [{"text": "ab", "spans": ["a", "b"]}] * len(rows)

    with pytest.raises(KeyboardInterrupt):
        batch.write_missing(batch.Batch(out, pairs, {}, {}, 2), dies, lambda what, done, total: None)
    assert [line["id"] for line in load(out)] == ["p0", "p1"]
    assert set(batch.read_done(out, pairs)) == {"p0", "p1"}


def test_unguided_needs_no_terminal(model: Path, tmp_path: Path) -> None:
    source = save(tmp_path / "pairs.jsonl", [{"id": 1, "context": "The fox. "}, {"id": "1", "context": ""}])
    write_batch(source, tmp_path / "out.jsonl", model, "--method", "unguided")
    assert [line["id"] for line in load(tmp_path / "out.jsonl")] == [1, "1"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3 is not JSON"),
        ("[1]", "line 3: expected a JSON object with id, context and terminal, got list"),
        ('{"context": "A", "terminal": "B"}', 'line 3: expected an "id"'),
        ('{"id": true, "context": "A", "terminal": "B"}', "line 3: expected an \"id\" .* got bool 'True'"),
        ('{"id": "p0", "context": "A", "terminal": "B"}', "line 3: id 'p0' was used on line 1"),
        ('{"id": 2, "context": 7, "terminal": "B"}', "line 3: expected a \"context\" .* got int '7'"),
        ('{"id": 2, "context": "A"}', 'line 3: expected a "terminal" .* a line without it'),
        ('{"id": 2, "context": "A", "terminal": " "}', "line 3: terminal is empty"),
        ('{"id": 2, "context": "A\\ud800", "terminal": "B"}', "line 3: context is not valid Unicode"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    source = save(tmp_path / "pairs.jsonl", PAIRS[:1])
    source.write_text(source.read_text(encoding="utf-8") + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises((InputError, ValueError), match=message):
        batch.read_pairs(source, need_terminal=True)
    error_line(write_batch(source, tmp_path / "out.jsonl", tmp_path))
    assert not (tmp_path / "out.jsonl").exists()


def test_a_terminal_that_fits_no_span_is_named_before_anything_is_written(model: Path, tmp_path: Path) -> None:
    source = save(tmp_path / "pairs.jsonl", [*PAIRS, {"id": 9, "context": "A", "terminal": "x" * (SPAN + 1)}])
    told = write_batch(source, tmp_path / "averaged.jsonl", model)
    assert told.exit_code == 0 and "1 terminals are longer than a span of 16 tokens and are averaged" in told.stderr
    message = error_line(write_batch(source, tmp_path / "out.jsonl", model, "--long", "error"))
    assert "line 6: terminal: a text of" in message
    assert not (tmp_path / "out.jsonl").exists()


def test_a_terminal_is_as_long_as_it_is_encoded(model: Path, tmp_path: Path) -> None:
    """A leading space is put before a terminal only if it has none."""
    for terminal, long in ((" " + "x" * (SPAN - 1), False), ("x" * SPAN, True)):
        source = save(tmp_path / "pairs.jsonl", [{"id": 1, "context": "A", "terminal": terminal}])
        result = write_batch(source, tmp_path / "out.jsonl", model, "--overwrite")
        assert (result.exit_code, "longer than a span" in result.stderr) == (0, long)


def test_files_that_are_no_batch(model: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"\n")
    (tmp_path / "bytes").write_bytes(b"\xff\n")
    out = tmp_path / "out.jsonl"
    assert "holds no lines" in error_line(write_batch(tmp_path / "empty", out, model))
    assert "not UTF-8" in error_line(write_batch(tmp_path / "bytes", out, model))
    assert "No such file" in error_line(write_batch(tmp_path / "none", out, model))
    assert "is a folder" in error_line(write_batch(source, tmp_path, model))


def test_a_file_of_another_batch_is_refused(model: Path, source: Path, tmp_path: Path) -> None:
    foreign, changed = tmp_path / "foreign.jsonl", tmp_path / "changed.jsonl"
    save(foreign, [{"id": "other", "text": "", "spans": []}])
    save(changed, [{**PAIRS[0], "context": "Else. ", "text": "", "spans": []}])
    assert "line 1 does not come from this batch" in error_line(write_batch(source, foreign, model))
    assert "id 'p0' had other fields" in error_line(write_batch(source, changed, model))
    assert len(load(foreign)) == 1
    assert write_batch(source, foreign, model, "--overwrite").exit_code == 0
    assert len(load(foreign)) == 5


def test_lines_of_other_options_are_not_mixed(model: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert write_batch(source, out, model).exit_code == 0
    whole = out.read_bytes()
    first = whole.splitlines(keepends=True)[0]
    for left in (whole, first):
        out.write_bytes(left)
        for options in (("--method", "fixed"), ("--seed", 9), ("--spans", 1), ("--method", "search", "--budget", 2)):
            message = error_line(write_batch(source, out, model, *options))
            assert "id 'p0' was written with other options" in message and "--overwrite" in message
        assert out.read_bytes() == left
    assert write_batch(source, out, model, "--batch-size", 2).exit_code == 0  # may be smaller where memory ran out
    assert out.read_bytes() == whole


def test_lines_of_another_model_are_not_mixed(model: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert write_batch(source, out, model).exit_code == 0
    line = load(out)[0]
    line["written_with"]["model"] = "0" * 12
    save(out, [line])
    assert "was written with another model" in error_line(write_batch(source, out, model))


def test_lines_that_do_not_say_what_wrote_them_are_refused(model: Path, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert write_batch(source, out, model).exit_code == 0
    line = load(out)[0]
    del line["written_with"]
    save(out, [line])
    assert "was written with other options" in error_line(write_batch(source, out, model))
    assert load(out) == [line]


def test_surrogates_in_other_fields_pass_through(model: Path, tmp_path: Path) -> None:
    pair = {**PAIRS[0], "note": "\ud800"}
    write_batch(save(tmp_path / "pairs.jsonl", [pair]), tmp_path / "out.jsonl", model)
    assert load(tmp_path / "out.jsonl")[0]["note"] == "\ud800"


def test_a_process_of_its_own_says_nothing_but_the_result(model: Path) -> None:
    """The libraries' warnings and bars stay off the screen; with --debug they may talk."""
    options = ("write", "-c", "The fox ran. ", "-t", "A fox.", "-n", 1, "-m", model, "--json")
    process = steer_process(*options)
    assert (process.returncode, process.stderr) == (0, "")
    assert json.loads(process.stdout) == document(steer(*options))
