"""`python -m diffeo`: the command line."""

from .cli import main

main()
