"""What the options of a reward are: a small strict record, since files enter here."""

from steer.records import StrictRecord


class Options(StrictRecord):
    """Options of a reward; this one, which has none, serves every reward that takes none. Unknown keys are errors."""
