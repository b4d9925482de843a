"""Steer base language models through latents: encode texts, mix latents, write spans from them.

The heavy parts load on first use, so that `import steer` is quick.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from steer.lazy_exports import lazy_exports as _lazy_exports

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
    from steer.writing.classifier_free import classifier_free_guidance as classifier_free_guidance
    from steer.writing.guided import Written as Written
    from steer.writing.guided import write_guided as write_guided
    from steer.writing.sampling import SamplingConfig as SamplingConfig
    from steer.writing.writer import Writer as Writer
    from steer.writing.writer import open_writer as open_writer

__all__, __dir__, _find = _lazy_exports(__name__)


def __getattr__(name: str) -> _Any:
    """An exported name, imported on first use; `__version__` is read from the installed package."""
    return _import_module("importlib.metadata").version("steer") if name == "__version__" else _find(name)
