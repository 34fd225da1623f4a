"""`python -m gateway.cli`: the command line where its script is not on the path."""

from gateway.cli import main

main()
