"""Records of files that got fields later: what says nothing is not written, so older files keep their bytes."""

from typing import Any, ClassVar

import pydantic


class Grown(pydantic.BaseModel):
    """A frozen record that refuses unknown keys, and leaves later fields out where they hold their defaults.

    Attributes:
        later: names of those fields.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    later: ClassVar[frozenset[str]] = frozenset()

    @pydantic.model_serializer(mode="wrap")
    def _without_defaults(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        silent = {name for name in self.later if getattr(self, name) == fields[name].default}
        return {key: value for key, value in handler(self).items() if key not in silent}
