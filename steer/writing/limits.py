"""What may not be written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

NAME_WINDOW = 12  # tokens in which a name at the beginning of a line is looked for
LABEL_WINDOW = 256  # tokens in which a line of a script before it is looked for
NAME = re.compile(r"\n\s*[A-Z][\w.'-]*(?: [A-Z][\w.'-]*){0,2}\Z")
LABEL = re.compile(r"\n\s*[A-Z][\w.'-]*(?: [A-Z][\w.'-]*){0,2}:")


@final
@dataclass(frozen=True)
class Limits:
    """What may not be written.

    Attributes:
        may_end: whether a story may end, that is whether the end token may be drawn.
        whole_words: whether the first token must not go on inside the context's last word, as in "Max" + "ed".
        plays: whether prose may turn into a play, with a line that begins with a name and a colon, where none of the
            row's lines did before. A model that was trained on plays does that now and then.
    """

    may_end: bool = True
    whole_words: bool = False
    plays: bool = False


def begins_script(tokenizer: Any, row: Sequence[int]) -> bool:
    """Whether a colon would make the last line of a row the first one of a script: a name so far, and none before.

    Args:
        tokenizer: of the base.
        row: visible token ids.
    """
    end = tokenizer.decode(list(row[-NAME_WINDOW:]))
    if NAME.search(end if len(row) > NAME_WINDOW else f"\n{end}") is None:
        return False
    return LABEL.search("\n" + tokenizer.decode(list(row[-LABEL_WINDOW:]))) is None
