"""What a worker in a container does is chosen by `mode` in the input.

A handler that waits opens a named pipe: it tells the test that it got here, and stays for exactly as long
as the test wants.
"""

import asyncio
import os
import signal

import runpod


def wait(job):
    with open("/shared/arrived", "w") as arrived:
        arrived.write(job["id"])
    with open("/shared/go") as go:
        return {"word": go.read()}


async def handler(job):
    mode = job["input"]["mode"]
    if mode == "env":
        return dict(os.environ)
    if mode == "wait":
        # In a thread, so that the SDK sees meanwhile that a server went away.
        return await asyncio.to_thread(wait, job)
    if mode == "block":
        # Nothing of the SDK runs any more, so it cannot be told to stop either.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return wait(job)
    raise KeyError(mode)


runpod.serverless.start({"handler": handler})
