"""`python -m audiostride` is the `audiostride` command."""

from .cli import main

main()
