"""Stories as plays, by rule: quoted speech becomes lines `Name: ...`, what is told stays as lines of its own.

Story corpora hold much direct speech and few plays. A model that has seen none writes a play badly: the line after
`Fox:` drifts back into telling. The rule reads who speaks from the words around a quotation (`"...," said the fox`,
`Ann asked, "..."`), lets two speakers take turns where nobody is named, and gives up on stories where it would guess
too often.
"""

import re

VERBS = (
    "said|says|asked|replied|answered|cried|shouted|whispered|exclaimed|called|yelled|explained|added|begged|agreed|"
    "continued|declared|responded|chirped|growled|squeaked|roared|muttered|sang|laughed|smiled|giggled|sighed|warned|"
    "suggested|told|croaked|hissed|hooted|announced|screamed|nodded|offered|promised|insisted|wondered"
)
ARTICLES = "the|a|an|his|her|their|my|its|one|another"
NAME = r"[A-Z][\w-]*"
NOUN = r"[a-z][\w-]*"
# `the wise old fox`, `Mrs. Fox`, `Tim's mom`, `she`; in a group of its own the word that becomes the name.
WHO = (
    rf"(?:(?i:{ARTICLES})\s(?:[a-z][\w'-]*,?\s){{0,3}}?(?:{NOUN}|{NAME})|(?:Mr|Mrs|Ms|Dr)\.?\s{NAME}|{NAME}'s\s{NOUN}|"
    rf"[Hh]e\b|[Ss]he\b|[Tt]hey\b|[Ii]t\b|{NAME})"
)
AFTER = re.compile(rf"\s*(?:(?P<who>{WHO})\s(?:\w+ly\s)?(?:{VERBS})\b|(?:{VERBS})\s(?P<whom>{WHO})(?=[\s,.!?:;]|$))")
BEFORE = re.compile(rf"\b(?:{VERBS})\b[^.!?\"]*[,:]\s*$")
DOES = (
    rf"(?:\w+ly\s)?(?:\w+ed|{VERBS}|was|were|had|did|could|would|saw|ran|went|came|felt|thought|knew|got|sat|stood|took|gave|"
    r"put|heard|found|held|flew|shook|swam|spoke|grew|met|told|let|made|began|stuck|rose|wore|woke|hid|kept|left|bent|fell|"
    r"led|lit|won|who|and)\b"
)
OPENERS = "Then|So|But|And|Soon|Suddenly|Finally|At last|One day|Just then|When"
SUBJECT = re.compile(rf"(?:(?:{OPENERS}),?\s)?(?P<who>{WHO})(?:,\s[^,]+,)?\s{DOES}")
CLOSE = re.compile(rf"(?P<who>{WHO})\s(?:\w+ly\s)?(?:{VERBS})\b[^.!?\"]*[,:]\s*$")
ALSO = re.compile(rf",?\s(?:and|then)\s(?:then\s)?(?:\w+ly\s)?(?:{VERBS})\b[^.!?\"]*$")
QUOTED = re.compile(r'"([^"]+)"')
SENTENCES = re.compile(r"(?<!Mr\.)(?<!Mrs\.)(?<!Ms\.)(?<!Dr\.)(?<=[.!?])\s+")
PRONOUNS = frozenset({"he", "she", "they", "it"})
NO_NAMES = frozenset(
    "And But Then So When As After Before One Once Just That This There What Why How If Now Not Soon Suddenly "
    "Finally I You We In On At The A An While With From Next Of To By For Who His Her Their My Its Our Some All "
    "Both Each Every Other Another Others Them Him Me Us Day Days Moral Story Eyes Face Heart Ears Voice "
    "Expression Smile Tail Head Hands Mouth Tears Tone Words Gaze Feeling Seeing Hearing Time Morning Night "
    "Evening Something Someone Everyone".split()
)
MAX_NAME = 20


def to_script(story: str, *, lines: int = 3, least_known: float = 0.75) -> str | None:
    """A story as a play, or None where the rule cannot tell who speaks.

    Args:
        story: with speech in straight double quotes, paragraphs on lines of their own.
        lines: lines of speech that a play has at least.
        least_known: share of the paragraphs with speech whose speakers must be known; the others are left out.

    Returns:
        Lines `Name: speech` between lines of narration, the first of them speech, or None: fewer lines of speech, fewer
        than two speakers, too many unknown ones, or quotation marks that do not pair. What is told before the first
        line of speech is left out: behind it a model would learn that any telling may turn into a play.
    """
    if story.count('"') % 2 or story.count('"') < 2 * lines:
        return None
    out: list[tuple[str | None, str]] = []
    speakers: list[str] = []
    known = unknown = 0
    for paragraph in (p.strip() for p in story.splitlines()):
        if paragraph.count('"') % 2:
            return None
        found = _parts(paragraph, speakers)
        if found is None:
            unknown += 1
            continue
        known += '"' in paragraph
        for who, text in found:
            if who and out and out[-1][0] == who:
                out[-1] = (who, f"{out[-1][1]} {text}")
            elif text:
                out.append((who, text))
            if who and speakers[-1:] != [who]:
                speakers.append(who)
    spoken = [who for who, _ in out if who]
    if len(spoken) < lines or len(set(spoken)) < 2 or known < least_known * (known + unknown):
        return None
    first = next(i for i, (who, _) in enumerate(out) if who)
    return "\n".join(f"{who}: {text}" if who else text for who, text in out[first:])


def _parts(paragraph: str, speakers: list[str]) -> list[tuple[str | None, str]] | None:
    """The parts of a paragraph in order: who speaks (None for narration) and the text. None where nobody knows who."""
    pieces = QUOTED.split(paragraph)  # narration, quotation, narration, ...
    if len(pieces) == 1:
        return [(None, paragraph)] if paragraph else []
    out: list[tuple[str | None, str]] = []
    speaker, told, heard = "", pieces[0], list(speakers)
    for i in range(1, len(pieces), 2):
        speech, right = pieces[i].strip(), pieces[i + 1]
        if not speech or (told.strip() and told.rstrip()[-1] not in ".!?,:"):
            return None  # a quotation inside a sentence is no line of a play
        followed = None if BEFORE.search(told) or _leads_on(speech, right) else AFTER.match(right)
        if BEFORE.search(told):
            speaker, told = _introduced(told, heard)
        elif followed:
            speaker = _name(followed["who"] or followed["whom"], told, heard)
        elif not speaker or told.strip():
            speaker = _in_turn(heard) if not (told + right).strip() else _actor(told, heard) or _actor(right, heard)
        if not speaker:
            return None
        if whole := _whole_sentences(told):
            out.append((None, whole))
        out.append((speaker, _closed(speech)))
        if heard[-1:] != [speaker]:
            heard.append(speaker)
        told = _later_sentences(right) if followed else right
    if whole := _whole_sentences(told):
        out.append((None, whole))
    return out


def _leads_on(speech: str, right: str) -> bool:
    """Whether the words behind a whole sentence of speech name the next speaker: `"Go!" His mom said, "No."`."""
    text = right.strip()
    return speech[-1] in ".!?" and text[:1].isupper() and bool(BEFORE.search(text)) and not SENTENCES.search(text)


def _introduced(told: str, speakers: list[str]) -> tuple[str, str]:
    """Who speaks after `... Ann smiled and asked,`, and what is told without the words that say so."""
    *earlier, last = SENTENCES.split(told.strip())
    subject = SUBJECT.match(last) or CLOSE.search(last)
    close = CLOSE.search(last)
    if subject and _plain(subject["who"]) in NO_NAMES:
        subject = close
    who = _name(subject["who"], " ".join(earlier), speakers) if subject else ""
    kept = ALSO.sub("", last)
    act = [] if kept == last or len(kept.split()) < 2 else [f"{kept.rstrip(' ,')}."]
    return who, " ".join([*earlier, *act])


def _actor(told: str, speakers: list[str]) -> str:
    """Who does something in the sentence beside a quotation that has no verb of speech: `Tom looked up. "Oh!"`."""
    sentences = [s for s in SENTENCES.split(told.strip()) if s]
    found = SUBJECT.match(sentences[-1]) if sentences else None
    return _name(found["who"], " ".join(sentences[:-1]), speakers) if found else ""


def _in_turn(speakers: list[str]) -> str:
    """Of two who talk, the one whose turn it is."""
    return speakers[-2] if len(set(speakers[-4:])) == 2 and len(speakers) > 1 else ""


def _name(who: str, told: str, speakers: list[str]) -> str:
    """`the wise old fox` is Fox, `Tim's mom` Mom; a pronoun is whom the paragraph told of, else whose turn it is."""
    if who.lower() in PRONOUNS:
        subjects = [m["who"] for s in SENTENCES.split(told.strip()) if (m := SUBJECT.match(s))]
        named = [n for w in subjects if w.lower() not in PRONOUNS and (n := _plain(w))]
        return named[-1] if named else "" if told.strip() else _in_turn(speakers)
    return _plain(who)


def _plain(who: str) -> str:
    """The name of a noun phrase; empty where it is none."""
    words = who.split()
    if len(words) > 1 and not re.match(r"(?:Mr|Mrs|Ms|Dr)\.?$", words[0]):
        words = words[-1:]
    name = " ".join(words).rstrip(".,'").removesuffix("'s")
    name = name[:1].upper() + name[1:]
    return "" if name in NO_NAMES or name.lower() in PRONOUNS or len(name) > MAX_NAME else name


def _whole_sentences(text: str) -> str:
    """Narration without a fragment at either end."""
    text = text.strip(" ,;:")
    if text[:1].islower():
        text = _later_sentences(text)
    return text if text.endswith((".", "!", "?")) else text[: max(text.rfind(c) for c in ".!?") + 1]


def _later_sentences(text: str) -> str:
    """What follows the first sentence of `text`; a colon or comma at its end counts as part of it."""
    parts = SENTENCES.split(text.strip(), maxsplit=1)
    return parts[1] if len(parts) > 1 else ""


def _closed(speech: str) -> str:
    """Speech that ended in a comma before its attribution ends in a full stop."""
    speech = speech[:1].upper() + speech[1:]
    return f"{speech[:-1]}." if speech[-1] in ",;" else speech
