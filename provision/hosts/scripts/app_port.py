"""The port in the gunicorn settings of a release: the argument names the file."""

import json
import sys

with open(sys.argv[1]) as file:
    print(json.load(file)["gunicorn"]["bind"].rpartition(":")[2])
