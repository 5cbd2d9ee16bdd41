"""A job that waits at a gate of the test. It ends on no SIGTERM, and has two children that do not either:
one that has left its process group, and one that has nothing of its environment. What it got on its input
and as a word it prints."""

import json
import os
import signal
import socket
import subprocess
import sys

signal.signal(signal.SIGTERM, signal.SIG_IGN)
job = json.load(sys.stdin)
# Neither holds a pipe of ours.
silent = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
away = subprocess.Popen(["sleep", "600"], start_new_session=True, **silent)
bare = subprocess.Popen(["/bin/sleep", "600"], env={}, **silent)
with socket.create_connection(("127.0.0.1", job["input"]["gate"])) as gate:
    hello = {"pid": os.getpid(), "away": away.pid, "bare": bare.pid, "env": dict(os.environ)}
    gate.sendall(json.dumps(hello).encode() + b"\n")
    word = gate.makefile().readline().strip()
for child in (away, bare):
    child.kill()
    child.wait()
print(f"got {word}", file=sys.stderr)
print(json.dumps({"word": word, "job": job}))
