"""The command line. Commands are loaded when they are called, and torch by those that need it."""

from convsmith.cli.commands import main

__all__ = ["main"]
