"""The roadmap of a run, over the index that its scenario names; and when the run goes on, over no other.

A plan follows from what the index holds, so with another a run could be neither resumed nor replayed to the same bytes.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from agents.errors import RunMismatch
from agents.index.build import open_index
from agents.index.roadmap import Roadmap
from agents.scenarios.planner_settings import RoadmapPart
from agents.scenarios.schema import Scenario
from steer.models.latent_model import LatentModel
from vectorstore import DimensionMismatch, EncoderMismatch, StoreNotFound, VectorStore

_REMEDY = (
    "put that index, or a copy of its folder, back at this path, or start a new run; an index that is built anew has "
    "another revision, even if it is of the same documents"
)


@contextmanager
def open_roadmap(scenario: Scenario, model: LatentModel) -> Iterator[Roadmap | None]:
    """The roadmap of a scenario, while its index is open; None where its planner goes straight.

    Raises:
        VectorStoreError: the index is not there, is of another encoder, or cannot be used.
    """
    part = _part(scenario)
    if part is None:
        yield None
        return
    with open_index(part.store, model) as store:
        yield _roadmap(store, model)


@contextmanager
def reopen_roadmap(scenario: Scenario, model: LatentModel, expected: str | None) -> Iterator[Roadmap | None]:
    """As `open_roadmap`, for a run that was started before.

    Args:
        scenario: of the run.
        model: of the run.
        expected: `Roadmap.identity` at the start, from the run's manifest.

    Raises:
        RunMismatch: the index is not there any more, is of another encoder, or was changed.
        VectorStoreError: it cannot be used for another reason.
    """
    part = _part(scenario)
    if part is None:
        yield None
        return
    with ExitStack() as stack:
        # Only the opening is in `try`: a store that the caller opens inside may raise the same errors.
        try:
            store = stack.enter_context(open_index(part.store, model))
        except (StoreNotFound, EncoderMismatch, DimensionMismatch) as error:
            problem = "there is none" if isinstance(error, StoreNotFound) else str(error)
            raise RunMismatch(
                f"the run plans by the index in {part.store}, and {problem}; expected revision {expected}: {_REMEDY}"
            ) from error
        roadmap = _roadmap(store, model)
        if roadmap.identity != expected:
            raise RunMismatch(
                f"the index in {part.store} was changed since the run was started, so its plans would differ; its "
                f"revision is {roadmap.identity}, expected {expected}: {_REMEDY}"
            )
        yield roadmap


def _part(scenario: Scenario) -> RoadmapPart | None:
    return None if scenario.planner.method == "unguided" else scenario.planner.roadmap


def _roadmap(store: VectorStore, model: LatentModel) -> Roadmap:
    return Roadmap(store, getattr(model, "reach", None))
