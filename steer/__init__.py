"""Steer base language models through latents: encode texts, mix latents, write spans from them.

The heavy parts load on first use, so that `import steer` is quick.
"""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from steer.errors import SteerError as SteerError
    from steer.latents.mixing import apply_op as apply_op
    from steer.latents.mixing import mix as mix
    from steer.latents.mixing import slerp as slerp
    from steer.latents.mixing import task_vector as task_vector
    from steer.latents.pull import Pull as Pull
    from steer.latents.schedules import ScheduleConfig as ScheduleConfig
    from steer.latents.schedules import make_schedule as make_schedule
    from steer.models.build import fresh_model as fresh_model
    from steer.models.checkpoint import packaged_model as packaged_model
    from steer.models.config import LatentConfig as LatentConfig
    from steer.models.latent_model import LatentModel as LatentModel
    from steer.noise import derive_seed as derive_seed
    from steer.writing.guided import Written as Written
    from steer.writing.guided import write_guided as write_guided
    from steer.writing.sampling import SamplingConfig as SamplingConfig
    from steer.writing.steps import classifier_free_guidance as classifier_free_guidance
    from steer.writing.writer import Writer as Writer
    from steer.writing.writer import open_writer as open_writer

_HOME = {
    "LatentConfig": "steer.models.config",
    "LatentModel": "steer.models.latent_model",
    "Pull": "steer.latents.pull",
    "SamplingConfig": "steer.writing.sampling",
    "ScheduleConfig": "steer.latents.schedules",
    "SteerError": "steer.errors",
    "Writer": "steer.writing.writer",
    "Written": "steer.writing.guided",
    "apply_op": "steer.latents.mixing",
    "classifier_free_guidance": "steer.writing.steps",
    "derive_seed": "steer.noise",
    "fresh_model": "steer.models.build",
    "make_schedule": "steer.latents.schedules",
    "mix": "steer.latents.mixing",
    "open_writer": "steer.writing.writer",
    "packaged_model": "steer.models.checkpoint",
    "slerp": "steer.latents.mixing",
    "task_vector": "steer.latents.mixing",
    "write_guided": "steer.writing.guided",
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
    "classifier_free_guidance",
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
    value = getattr(_importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
