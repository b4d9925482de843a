"""Words of a goal are found in what is visible, in every script and normal form."""

import unicodedata

import pytest

from steer.quotations import shared_words

GOAL = "The old fox shared his bread with the hungry bird."


@pytest.mark.parametrize(
    ("text", "visible", "found"),
    [
        (GOAL, "A tale: the OLD fox, shared his; and more.", "the old fox shared his"),
        (GOAL, "The fox had the bread with him.", None),
        ("They went home.", "So they went home again.", "they went home"),
        ("They went home.", "So they all went home again.", None),
        ("Home again.", "They are home\nagain!", "home again"),
        ("Cake!", "There is (cake) for all.", "cake"),
        ("Cake!", "There are cakes, and a pancake.", None),
        ("Don\u2019t go.", "He said: don't go!", "dont go"),
        ("\U0001f98a\u2764\ufe0f\U0001f426", "a \U0001f98a\u2764\U0001f426 b", "\U0001f98a \u2764 \U0001f426"),
        ("...", "Well ...", None),
        ("", "Well ...", None),
        ("5 coins", "She found 5 coins.", "5 coins"),
    ],
)
def test_runs_of_words(text: str, visible: str, found: str | None) -> None:
    assert shared_words(text, visible) == found


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("小明找到了金币。", "有一天，小明找到了金币！"),
        ("\u5c0f\u660e", "\u4ece\u524d\u6709\u4e2a\u5c0f\u660e\u3002"),
        ("その狐はパンを鳥に分けてあげました。",
         "\u6614\u3001\u305d\u306e\u72d0\u306f\u30d1\u30f3\u3092\u9ce5\u306b\u5206\u3051\u305f\u3002"),
        ("\uff76\uff9e\uff97\uff7d", "\u30ac\u30e9\u30b9\u306e\u9774"),  # half-width katakana
        ("หมากิน", "แล้วหมากินข้าว"),
        ("여우가 빵을 나누었다", "그 여우가 빵을 나누었다."),
        ("Лиса нашла хлеб", "И лиса НАШЛА хлеб!"),
        ("Andr\u00e9 s\u00e9duit la reine d\u00e9j\u00e0 \u00e0 Paris.",
         unicodedata.normalize("NFD", "Andr\u00e9 s\u00e9duit la reine d\u00e9j\u00e0 \u00e0 Paris.")),
        ("Andr\u00e9 s\u00e9duit la reine", "Andre seduit la reine"),
        ("stra\u00dfe nach hause", "STRASSE NACH HAUSE"),
        ("किताब मिली", "उसे किताब मिली।"),
    ],
)  # fmt: skip
def test_scripts_and_normal_forms(text: str, visible: str) -> None:
    assert shared_words(text, visible)
    assert shared_words(text, unicodedata.normalize("NFKD", visible))


DISGUISES = {
    "full width": lambda s: "".join(chr(ord(c) + 0xFEE0) if c.isalpha() else c for c in s),
    "soft hyphens": lambda s: "\u00ad".join(s),
    "zero width": lambda s: "\u200b".join(s),
    "joiners": lambda s: "\u034f".join(s),
    "selectors": lambda s: "\ufe0f".join(s),
    "directions": lambda s: "\u202a" + s.replace(" ", " \u2066") + "\u202c",
    "tags": lambda s: s.replace("e", "e\U000e0065"),
    "underscores": lambda s: s.replace(" ", "_"),
    "no spaces": lambda s: s.replace(" ", ""),
    "letters apart": lambda s: " ".join(s),
    "hyphens": lambda s: "-".join(s),
    "no-break spaces": lambda s: s.replace(" ", "\u00a0"),
    "lines": lambda s: s.replace(" ", "\n\n* "),
    "bold": lambda s: "".join(chr(0x1D41A + ord(c) - 97) if "a" <= c <= "z" else c for c in s),
    "circled": lambda s: "".join(chr(0x24D0 + ord(c) - 97) if "a" <= c <= "z" else c for c in s),
    "Cyrillic": lambda s: s.translate(str.maketrans("aeopcxyis", "аеорсхуіѕ")),
    "Greek": lambda s: s.translate(str.maketrans("ovTBAE", "\u03bf\u03bd\u03a4\u0392\u0391\u0395")),
    "accents": lambda s: s.replace("e", "e\u0301").replace("o", "\u00f6"),
    "digits": lambda s: s.replace("o", "0").replace("l", "1"),
    "capitals": str.upper,
}  # fmt: skip


@pytest.mark.parametrize("name", DISGUISES)
def test_disguises(name: str) -> None:
    assert shared_words(GOAL, f"Once {DISGUISES[name](GOAL)} Then it rained.")
    assert shared_words("Cake", f"Once {DISGUISES[name]('Cake')}, then rain.")
    assert not shared_words(GOAL, f"Once {DISGUISES[name]('a young crow hid its cheese from a clever wolf')}.")


def test_like_letters_do_not_make_like_words() -> None:
    assert shared_words("The corn is ripe.", "The comet is ripe.") is None
