"""Steer base language models through latents: encode texts, mix latents, write spans from them.

The heavy parts load on first use, so that `import steer` is quick.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from steer.checkpoint import packaged_model as packaged_model
    from steer.config import LatentConfig as LatentConfig
    from steer.errors import SteerError as SteerError
    from steer.fresh import fresh_model as fresh_model
    from steer.guidance import Pull as Pull
    from steer.guidance import apply_op as apply_op
    from steer.guidance import cfg as cfg
    from steer.guidance import mix as mix
    from steer.guidance import slerp as slerp
    from steer.guidance import task_vector as task_vector
    from steer.guided import Written as Written
    from steer.guided import write_guided as write_guided
    from steer.model import LatentModel as LatentModel
    from steer.noise import derive_seed as derive_seed
    from steer.sampling import SamplingConfig as SamplingConfig
    from steer.schedules import ScheduleConfig as ScheduleConfig
    from steer.schedules import make_schedule as make_schedule
    from steer.writer import Writer as Writer
    from steer.writing import open_writer as open_writer

_HOME = {
    "LatentConfig": "config",
    "LatentModel": "model",
    "Pull": "guidance",
    "SamplingConfig": "sampling",
    "ScheduleConfig": "schedules",
    "SteerError": "errors",
    "Writer": "writer",
    "Written": "guided",
    "apply_op": "guidance",
    "cfg": "guidance",
    "derive_seed": "noise",
    "fresh_model": "fresh",
    "make_schedule": "schedules",
    "mix": "guidance",
    "open_writer": "writing",
    "packaged_model": "checkpoint",
    "slerp": "guidance",
    "task_vector": "guidance",
    "write_guided": "guided",
}

__all__ = [
    "LatentConfig",
    "LatentModel",
    "Pull",
    "SamplingConfig",
    "ScheduleConfig",
    "SteerError",
    "Writer",
    "Written",
    "apply_op",
    "cfg",
    "derive_seed",
    "fresh_model",
    "make_schedule",
    "mix",
    "open_writer",
    "packaged_model",
    "slerp",
    "task_vector",
    "write_guided",
]


def __getattr__(name: str) -> _Any:
    """Import an exported name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'steer' has no attribute {name!r}")
    value = getattr(_importlib.import_module(f"steer.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
