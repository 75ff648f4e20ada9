"""The command ``rdc-bench`` as the pages' code blocks meet it in the tests: the same, on few images.

Options that are given last win, so that nothing else of a command changes.
"""

import sys

from rdc_bench.cli import main

FEW = {
    "run": ["--n", "2", "--repeats", "1"],
    "reproduce": ["--n", "2"],
    "diagnose": ["--n", "16"],
}

if __name__ == "__main__":
    sys.argv += FEW.get(sys.argv[1], [])
    main()
