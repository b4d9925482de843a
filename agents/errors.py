"""Every error that `agents` raises on purpose.

```
AgentsError
├── ArgumentError   (TypeError, ValueError)  an argument of a wrong type
├── InputError      (ValueError)         options or input files of a command that cannot be used
├── ScenarioError   (ValueError)         a scenario file with unknown keys or values that make no sense
│   └── ScenarioNotFound (FileNotFoundError)  neither a file nor the name of a packaged scenario
├── ExperimentError (ValueError)         an experiment file, or pairs, that cannot be used
├── IndexingError   (ValueError)         documents that cannot be indexed, or a store that is not of documents
├── GoalError       (ValueError)         a goal, voice, name or opening that this model cannot use
├── RunExists       (FileExistsError)    the folder of a new run holds something already
├── RunNotFound     (FileNotFoundError)  a folder that holds no run
├── RunBusy         (BlockingIOError)    another process is writing this run
├── RunDamaged      (ValueError)         files of a run that were changed, or that do not belong together
├── RunMismatch     (ValueError)         a run that was made with another model or scenario
└── RunWriteError   (OSError)            the disk refused; what was reported before is safe
```

Each is also a builtin, so that `except ValueError` does what a reader expects. A message says what came, what was
expected and what to try.
"""


class AgentsError(Exception):
    """Base of all errors raised on purpose by `agents`."""


class ArgumentError(AgentsError, TypeError, ValueError):
    """An argument of a wrong type, or one that is missing where another one needs it."""


class InputError(AgentsError, ValueError):
    """Options or input files of a command of `steer` that cannot be used."""


class ScenarioError(AgentsError, ValueError):
    """A scenario that cannot be read or makes no sense; names the line and the key."""


class ScenarioNotFound(ScenarioError, FileNotFoundError):
    """There is no scenario file at a path, nor a packaged scenario of that name."""


class ExperimentError(AgentsError, ValueError):
    """The file of an experiment, or its pairs, that cannot be used; names the line and the key."""


class IndexingError(AgentsError, ValueError):
    """Documents that cannot be indexed, or a store that does not hold what was to be found in it."""


class GoalError(AgentsError, ValueError):
    """A goal, voice, name or opening that the model at hand cannot use, such as a goal longer than a span."""


class RunExists(AgentsError, FileExistsError):
    """The folder of a new run is not empty."""


class RunNotFound(AgentsError, FileNotFoundError):
    """A folder that holds no run."""


class RunBusy(AgentsError, BlockingIOError):
    """Another process is writing this run."""


class RunDamaged(AgentsError, ValueError):
    """Files of a run that were changed after they were written, or that are missing."""


class RunMismatch(AgentsError, ValueError):
    """A run that cannot be continued with this model or scenario."""


class RunWriteError(AgentsError, OSError):
    """The file system refused to take what was written; all events reported before are on the disk."""
