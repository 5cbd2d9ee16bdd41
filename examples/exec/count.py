"""A job without any SDK: the job comes on standard input, the output goes to standard output."""

import json
import os
import sys

job = json.load(sys.stdin)
text = job["input"]["text"]
if not isinstance(text, str):
    sys.exit("input.text should be a text")  # exit code 1: the job fails, and this is its error
print(f"counting for {os.environ['LAZYFOX_ENDPOINT']}", file=sys.stderr)  # the log
print(json.dumps({"words": len(text.split()), "characters": len(text)}))
