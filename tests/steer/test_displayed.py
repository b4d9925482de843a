"""What files say is words to read: on a terminal, in JSON, in Markdown."""

import json
import re
import sys
import unicodedata

import pytest
from markdown_it import MarkdownIt

from steer.displayed import (
    markdown_code,
    markdown_item,
    markdown_line,
    markdown_sentence,
    markdown_text,
    printable,
    printable_json,
)

ATTACKS = (
    "\x1b]0;title\x07",
    "\x1b]52;c;aGk=\x1b\\",
    "\x1b[2J\x1b[31mred\x1b[0m",
    "\x9b2J\x9d0;t\x9c\x90q\x9c",
    "back\x08space\rreturn\x0bup\x0cform\x7f",
    "abc\u202egpj.exe\u202c \u2066isolated\u2069",
    "line\u2028and\u2029paragraph",
    "lone \ud800 surrogate",
)
MARKUP = (
    "<script>alert(1)</script> <!-- x --> <?php ?> </p>",
    "[a](javascript:1) ![b](http://x/y.png) [c]: http://x",
    "https://example.org www.example.org <http://x.org> WWW.example.org",
    "*a* **b** _c_ __d__ ~~e~~ `f` a_b_c snake_case $x$",
    "# head\n- item\n+ item\n1. one\n2) two\n> quoted\n===\n---\n```\ncode\n```\n~~~\nx\n~~~",
    "a|b\n-|-\nc|d",
    "a|b\n:-|-:\nc|d",
    "said\n\n    indented\n\n\tby a tab\n\n  \tby both",
    "&lt;b&gt; &amp; &#60; R&D, 1 < 2 > 0 \\ and \\*",
    "* * *\n_ _ _\n\nhead\n====\n\n1986. A year.",
)


def rendered(text: str) -> tuple[str, set[str]]:
    """What a reader of Markdown (tables, struck text, HTML and addresses as they are found) shows, and its tags."""
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)
    tags = set(re.findall(r"</?([a-z0-9]+)", html))
    shown = re.sub(r"<[^>]*>", "", html)
    for name, character in (("lt", "<"), ("gt", ">"), ("quot", '"'), ("amp", "&")):
        shown = shown.replace(f"&{name};", character)
    return shown, tags


def test_no_character_is_obeyed_by_a_terminal() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    left = set(printable(everything))
    controls = {c for c in everything if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")} - set("\n\t")
    overrides = {c for c in everything if unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF")}
    isolates = {c for c in everything if unicodedata.bidirectional(c) in ("LRI", "RLI", "FSI", "PDI")}
    assert not left & (controls | overrides | isolates)
    letters = {c for c in everything if unicodedata.category(c)[0] in "LMNPS"} | set("\u200c\u200d\u200e\u200f")
    assert letters <= left
    for attack in ATTACKS:
        assert len(printable(attack)) == len(attack)
    assert printable("two\r\nlines\tand שלום 👩‍🚀") == "two\nlines\tand שלום 👩‍🚀"


@pytest.mark.parametrize("attack", ATTACKS)
def test_json_says_the_same(attack: str) -> None:
    document = printable_json(json.dumps({attack: [attack, "東🦊"]}, ensure_ascii=False))
    assert document == printable(document) and json.loads(document) == {attack: [attack, "東🦊"]}
    assert "東🦊" in document


@pytest.mark.parametrize("text", MARKUP)
def test_words_are_no_markdown(text: str) -> None:
    for made, given in ((markdown_text(text), text), (markdown_item(text), " ".join(text.split()))):
        shown, tags = rendered(made)
        assert tags <= {"p", "br"}
        assert shown.replace("\u00a0", " ").split() == given.split()
    one = " ".join(text.split())
    shown, tags = rendered(f"| {markdown_line(text)} | b |\n|---|---|\n| c | {markdown_line(text)} |")
    assert tags == {"table", "thead", "tbody", "tr", "th", "td"}
    assert shown.split() == [*one.split(), "b", "c", *one.split()]
    assert rendered(f"## {markdown_line(text)}")[1] == {"h2"}
    assert not re.search(r"https?://|(?i:www\.)", markdown_text(text))


def test_code_ends_where_it_ends() -> None:
    text = "a: 1\n```\n<script>\n````\n\x1b[2J"
    shown, tags = rendered(markdown_code(text, "yaml"))
    assert tags == {"pre", "code"} and shown.strip() == printable(text)


def test_sentences_of_our_own_keep_their_code() -> None:
    said = markdown_sentence("`pip install 'a[b]'` was best with <b>x</b> and *y*, not `")
    assert "\\<b" in markdown_sentence("x``` <b> `told`") and "\\<b" in markdown_sentence("x` <b> `told`")
    assert said == "`pip install 'a[b]'` was best with \\<b\\>x\\</b\\> and \\*y\\*, not \\`"
