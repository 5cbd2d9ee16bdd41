"""A generator without aggregation: its chunks exist only in the stream."""

import runpod

import gate


def handler(job):
    given = job["input"]
    yield from given["before"]
    if "gate" in given:
        gate.wait(job)
    if given.get("raise"):
        raise ValueError("boom in the middle")
    yield from given["after"]


runpod.serverless.start({"handler": handler})
