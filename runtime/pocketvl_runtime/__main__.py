"""`python -m pocketvl_runtime` is `pocketvl-run`."""

from pocketvl_runtime.cli import main

main()
