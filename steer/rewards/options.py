"""What the options of a reward are: a small strict record, since files enter here."""

import pydantic


class Options(pydantic.BaseModel):
    """Options of a reward; this one, which has none, serves every reward that takes none. Unknown keys are errors."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
