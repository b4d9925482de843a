"""Text from outside as it may be shown: on a terminal, in JSON, in Markdown.

What a file says (a name, a text, a path) is words to read. It moves no cursor, sets no title, writes no clipboard,
turns no line of text around, and is no markup. Nothing is lost but what nobody could read.
"""

import re

# Control characters (C0 but tab and line feed, DEL, C1: a terminal obeys them), the embeddings, overrides and isolates
# of bidirectional text (they show words in another order than they stand), line and paragraph separators, the marks of
# interlinear annotations, and lone surrogates, which no encoding holds. Marks of direction (U+200E, U+200F) stay: text
# in Hebrew and Arabic needs them, and they turn nothing else around.
_HIDDEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff"
_UNPRINTABLE = re.compile(f"[{_HIDDEN}]")
# What Markdown takes for markup anywhere in a line: `_` not inside of words, `<` and `&` where they begin something,
# addresses (which become links by themselves), and the bar, which ends a cell.
_INLINE = re.compile(
    r"[\\`*\[\]>|~$]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])|:(?=//)|(?<=www)\.", re.IGNORECASE
)
# What is markup at the start of a line: headings, lists, rules, fences, tables; `1.` and `1)` begin lists.
_LINE_START = re.compile(r"^([ \t]*)([#+\-=:])", re.MULTILINE)
_NUMBERED = re.compile(r"^([ \t]*\d+)([.)])", re.MULTILINE)
_INDENTED = re.compile(r"^(?: {4}|[ ]{0,3}\t)", re.MULTILINE)


def printable(text: str) -> str:
    """Text that is safe on a terminal: each hidden or control character is U+FFFD, tabs and line feeds stay."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n"))


def printable_json(document: str) -> str:
    r"""A JSON document that is safe on a terminal and says the same: such characters are written as `\uXXXX`."""
    return re.sub(f"[{_HIDDEN}]", lambda found: f"\\u{ord(found[0]):04x}", document)


def markdown_line(text: str) -> str:
    """Text on one line, as in a cell or a heading, none of which is Markdown or HTML."""
    return _INLINE.sub(r"\\\g<0>", " ".join(printable(text).split()))


def markdown_item(text: str) -> str:
    """Text on one line that begins an item of a list, a quotation or a paragraph, none of which is Markdown or HTML."""
    return markdown_text(" ".join(printable(text).split()))


def markdown_text(text: str) -> str:
    """Text of any number of lines, none of which is Markdown or HTML; indented lines are no code."""
    text = _INLINE.sub(r"\\\g<0>", printable(text))
    text = _NUMBERED.sub(r"\1\\\2", _LINE_START.sub(r"\1\\\2", text))
    return _INDENTED.sub(lambda found: "\u00a0" * len(found[0]), text)


def markdown_code(text: str, language: str = "") -> str:
    """Text as a block of code, which ends where the text ends, whatever stands in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{printable(text).strip()}\n{fence}"


def markdown_sentence(text: str) -> str:
    """A sentence of our own with names in it: what stands between ticks is code, the rest is no Markdown or HTML."""
    parts = re.split(r"((?<!`)`[\w .,'\[\]-]+`(?!`))", " ".join(printable(text).split()))
    return "".join(part if index % 2 else _INLINE.sub(r"\\\g<0>", part) for index, part in enumerate(parts))
