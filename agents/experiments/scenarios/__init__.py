"""Experiments over scenarios: whole simulations in arms that change the planner."""
