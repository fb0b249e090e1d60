"""`python -m rlrun`: the same as the command `rlrun`."""

from rlrun.cli.main import main

main()
