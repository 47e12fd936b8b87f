"""`python -m provision`, and the script that the tool starts where it needs a command of its own in the background."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Isolated (env/wrapper.py), Python puts no directory of ours on the path; `-m` has done so.
    root = str(Path(__file__).resolve().parents[1])
    if root not in sys.path:
        sys.path.insert(0, root)

    from provision.cli.entry import main

    sys.exit(main())
