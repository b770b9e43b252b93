"""`python -m trainloop` is the console command `trainloop`."""

import os
import sys

# Python looks for modules in the current folder first, where a user's tensorflow.py would take the place of TensorFlow.
if sys.path and sys.path[0] in ("", os.getcwd()):
    sys.path.append(sys.path.pop(0))

from trainloop.cli.main import main

if __name__ == "__main__":
    main()
