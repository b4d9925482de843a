"""Playing a scenario: events, log, turns, state, resume, audit."""
