"""YAML files from people and from strangers: what is read, what is refused, and that both are quick."""

import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from steer.records import KeysOf, StrictRecord, describe_errors, suggest
from steer.yaml_file import MAX_CHARACTERS, YamlFile, read_yaml

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


class FileError(ValueError):
    """What the files of these tests raise."""


class Small(StrictRecord):
    kind: Literal["small"] = "small"
    size: int = 1


class Large(StrictRecord):
    kind: Literal["large"]
    sizes: tuple[float, ...] = ()


class Whole(StrictRecord):
    version: Literal[1] = 1
    name: str = ""
    turns: int | None = None
    share: Annotated[float, pydantic.Field(ge=0)] = 0.5
    shares: dict[str, float] = {}
    switch: bool = False
    anything: Any = None
    parts: tuple[
        Annotated[
            Annotated[Small, pydantic.Tag("small")] | Annotated[Large, pydantic.Tag("large")],
            pydantic.Discriminator(lambda part: part.get("kind", "small") if isinstance(part, dict) else part.kind),
        ],
        ...,
    ] = ()
    late: Annotated[dict[str, Any], KeysOf(Small)] = {}


def read(folder: Path, text: str | bytes) -> YamlFile:
    path = folder / "file.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_yaml(path, "recipe", expected="name and turns", error=FileError)


def load(folder: Path, text: str | bytes) -> Whole:
    file = read(folder, text)
    with file.checked(Whole):
        return Whole.model_validate(file.data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"file\.yaml: expected a mapping with name and turns; got nothing"),
        ("- a\n- b\n", "got a list"),
        ("words", "got plain text"),
        ("name: [It", r"file\.yaml:\d+: not valid YAML"),
        ("name: a\n\nname: b", r"file\.yaml:3: name: this key stands here twice"),
        ("late: {1: a, '1': b}", r"file\.yaml:1: 1: this key stands here twice"),
        ("name: &n a\nlate: *n", r"file\.yaml:2: aliases \(\*n\) are not supported"),
        ("late: &n {size: *n}", r"aliases"),
        (BOMB, "aliases"),
        ("turns: !!int ''", r"file\.yaml:1: tags \(tag:yaml.org,2002:int\) are not supported"),
        ("turns: !!bool foo", "tags"),
        ("turns: !!timestamp foo", "tags"),
        ("turns: !!python/object:os.system {}", "tags"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "{a: " * 5000, "nested too deeply"),
        ("turns: " + "9" * 5000, "not valid YAML"),
        ("name: 0x" + "9" * 5000, r"name: .*a number of over 80 digits"),
        ("name: " + "a" * MAX_CHARACTERS, r"a recipe of 200,006 characters; expected at most 200,000"),
        ("".join(f"k{i}: 1\n" for i in range(12_000)), r"unknown key.*(\n.*)*and 11992 more"),
        ('"a\\x1b[2Jb": 1', r"'a\\x1b\[2Jb': unknown key"),
        ("x" * 500 + ": 1", r"xxx\.\.\.: unknown key"),
        ("? [a]\n: 1", "not valid YAML"),
        ("turns: yes", r"file\.yaml:1: turns: expected a number; got a truth value.*\(got True\)"),
        ("version: on", "version: expected a number; got a truth value"),
        ("share: no", "share: expected a number; got a truth value"),
        ("shares: {a: 1, b: off}", "shares: expected a number; got a truth value"),
        ("parts: [{size: yes}]", r"file\.yaml:1: parts\.0\.size: expected a number"),
        ("parts: [{kind: large, sizes: [1, yes]}]", r"parts\.0\.sizes: expected a number"),
        ("turns: 1:30", r"turns: .*\(got '1:30'\)"),
        ("name: no", r"name: .*string \(got False; put it in quotes\)"),
        ('name: "\\ud83d"', r"file\.yaml:1: half of a surrogate pair"),
        ("parts:\n- kind: large\n  szies: [1]", r"file\.yaml:3: parts\.0\.szies: unknown key; did you mean 'sizes'\?"),
        ("parts:\n- size: 1\n  sizes: [1]", r"file\.yaml:3: parts\.0\.sizes: unknown key; expected one of kind, size"),
        ("nmae: a\nname: b", r"file\.yaml:1: nmae: unknown key; expected one of version, name"),
    ],
)
def test_what_is_refused_is_told_with_line_and_key_and_at_once(tmp_path: Path, text: str, message: str) -> None:
    start = time.process_time()
    with pytest.raises(FileError, match=message) as caught:
        load(tmp_path, text)
    assert time.process_time() - start < 5
    assert len(str(caught.value)) < 4000


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("turns: 010", "turns", 10),
        ("name: 2001-99-99", "name", "2001-99-99"),
        ("name: 1:30", "name", "1:30"),
        ("switch: yes", "switch", True),
        ("late: {<<: {size: 1}, size: 2}", "late", {"<<": {"size": 1}, "size": 2}),
        ("anything: [yes, 0x10, 1e-3, ~]", "anything", [True, 16, "1e-3", None]),
        ("share: 1e-3", "share", 0.001),
        ("turns: ~", "turns", None),
        ('{"name": "\\ud83d\\ude00 \\u00e9"}', "name", "😀 é"),
        (b"\xef\xbb\xbfname: a\r\nturns: 3\r\n", "turns", 3),
    ],
)
def test_what_is_read(tmp_path: Path, text: str | bytes, field: str, value: Any) -> None:
    assert getattr(load(tmp_path, text), field) == value


TEXTS = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=30)
DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**6), 10**6).map(lambda n: n / 8) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(data=st.dictionaries(TEXTS, DATA, max_size=4))
def test_whatever_is_dumped_is_read_back(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> None:
    folder = tmp_path_factory.getbasetemp()
    assert read(folder, yaml.safe_dump(data, allow_unicode=True)).data == data
    if all(text.isprintable() for text in json.dumps(data, ensure_ascii=False)):
        assert read(folder, json.dumps(data)).data == data


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from("ab:-[]{}&*!|>'\"%@`,?#<~ \n\t0159.exyno\\u\ud83d\ude00é"), max_size=60))
def test_no_text_raises_anything_else(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    try:
        load(tmp_path_factory.getbasetemp(), text.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        assert isinstance(error, FileError) or type(error).__name__ == "TextError"


def test_data_without_a_file_have_no_lines() -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Whole.model_validate({"turns": True, "late": 1})
    lines = describe_errors(caught.value, Whole, "options").splitlines()
    assert lines[0].startswith("options: turns: expected a number") and lines[1].startswith("options: late: ")


def test_numbers_from_python_are_as_strict() -> None:
    assert Whole(turns=3, share=1, anything=True, switch=True).turns == 3
    with pytest.raises(ValueError, match="truth value"):
        Small(size=True)


def test_suggestions() -> None:
    assert suggest("turn", ["turns", "seed"]) == "did you mean 'turns'?"
    assert suggest("turn", ["turns", "seed"], taken=["turns"]) == "expected one of turns, seed"
    assert suggest("x", []) == "expected none"
