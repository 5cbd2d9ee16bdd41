"""The worker's end of a gate: tell the test that the handler got here, then wait for its word.

One line of JSON goes to the test; a line comes back when the handler may go on. Nothing depends on
time: the handler stays for exactly as long as the test wants.
"""

import asyncio
import json
import os
import socket

# What handlers wait on. Nothing else refers to it: 1.6.2 does not keep its tasks, and a job whose
# task waits for what only the task knows is collected as garbage, in the middle of its handler.
_waited_on = set()


def _hello(job):
    return (
        json.dumps(
            {
                "job": job["id"],
                "worker": os.environ["RUNPOD_POD_ID"],
                "pid": os.getpid(),
                "pgid": os.getpgid(0),
                "post_output": os.environ["RUNPOD_WEBHOOK_POST_OUTPUT"],
                "key": os.environ["RUNPOD_AI_API_KEY"],
            }
        )
        + "\n"
    ).encode()


def wait(job):
    """Blocks a handler that is not async; returns the word of the test."""
    with socket.create_connection(("127.0.0.1", job["input"]["gate"])) as connection:
        connection.sendall(_hello(job))
        return connection.makefile("r").readline().strip()


async def wait_async(job):
    """The same without blocking the worker's other jobs.

    The handler runs inside the SDK's own task for the job, which ends only after the result was
    posted. That end is reported to the test as well, so that it knows when a result is late.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", job["input"]["gate"])
    _waited_on.add(reader)
    asyncio.current_task().add_done_callback(lambda task: _bye(reader, writer, task))
    writer.write(_hello(job))
    return (await reader.readline()).decode().strip()


def _bye(reader, writer, task):
    _waited_on.discard(reader)
    writer.write(b"cancelled\n" if task.cancelled() else b"posted\n")
    writer.close()
