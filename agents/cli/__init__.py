"""The command line `steer`: a module is a command, named as it is typed; helpers begin with an underscore.

Everything heavy (torch, transformers, faiss) is imported inside the commands: help and errors of usage come at once.
"""

from agents.cli._app import app, main

__all__ = ["app", "main"]
