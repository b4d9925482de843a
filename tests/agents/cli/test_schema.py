"""`steer schema`."""

import json

from agents.scenarios.loading import scenario_schema
from tests.agents.cli.kit import document, steer


def test_schema_is_the_packages_own() -> None:
    assert document(steer("schema")) == json.loads(json.dumps(scenario_schema()))
