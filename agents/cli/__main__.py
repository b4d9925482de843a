"""`python -m agents.cli` is the command `steer`."""

from agents.cli import main

main()
