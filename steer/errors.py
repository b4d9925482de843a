"""Every error that `steer` raises on purpose.

```
SteerError
├── ArgumentError      (ValueError, TypeError)  an argument of a wrong type, an unknown device, dtype or option
├── TextError          (ValueError)   empty, undecodable or over-long text
├── GuidanceError      (ValueError)   pulls, schedules or mixes that make no sense
├── SamplingError      (ValueError)   sampling settings out of range, NaN logits
├── RewardError        (ValueError)   rewards that are unknown, misconfigured, or that give NaN
├── LatentError        (ValueError)   latents of a wrong width, dtype, or with NaN
├── CheckpointError    (ValueError)   a missing, truncated, tampered or foreign checkpoint
├── ModelNotFound      (OSError)      a model id or folder that cannot be loaded
├── BaseMismatch       (ValueError)   adapters that belong to another base model
├── UnsupportedBase    (ValueError)   a base whose attention cannot be opened to both sides
├── SearchError        (ValueError)   trees, menus, policies or budgets that make no sense
├── RecipeError        (ValueError)   a training recipe with unknown keys or wrong values
├── CorpusError        (ValueError)   training text that is missing, empty or not text
└── TrainingError      (RuntimeError) a training stage that cannot start or go on
```

Each is also a builtin, so that `except ValueError` does what a reader expects. A message says what came, what was
expected and what to try.
"""


class SteerError(Exception):
    """Base of all errors raised on purpose by `steer`."""


class ArgumentError(SteerError, ValueError, TypeError):
    """An argument that is unknown, or of a wrong type or value, where no error below says it better."""


class TextError(SteerError, ValueError):
    """Text that cannot be used: empty, undecodable, or longer than a span where a span is wanted."""


class GuidanceError(SteerError, ValueError):
    """Pulls, schedules or mixes that make no sense."""


class SamplingError(SteerError, ValueError):
    """Sampling settings out of range, or logits that hold NaN."""


class RewardError(SteerError, ValueError):
    """Rewards that are unknown or misconfigured, that lack what they need, or that give NaN."""


class LatentError(SteerError, ValueError):
    """Latents of a wrong shape or dtype, or that hold NaN or infinity."""


class CheckpointError(SteerError, ValueError):
    """A checkpoint that is missing parts, truncated, tampered with or of another kind."""


class ModelNotFound(SteerError, OSError):
    """A model id or folder from which no model can be loaded."""


class BaseMismatch(SteerError, ValueError):
    """Adapters and heads that were trained on another base model."""


class UnsupportedBase(SteerError, ValueError):
    """A base model whose attention cannot be opened to both sides, or that takes no embeddings."""


class SearchError(SteerError, ValueError):
    """Trees, menus, policies or budgets that make no sense, or a saved tree that is damaged."""


class RecipeError(SteerError, ValueError):
    """A training recipe with unknown keys or wrong values."""


class CorpusError(SteerError, ValueError):
    """Training text that is missing, empty or not text."""


class TrainingError(SteerError, RuntimeError):
    """A training stage that cannot start or cannot go on."""
