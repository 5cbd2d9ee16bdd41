"""An async handler; the variable SLOTS says how many jobs it takes at the same time."""

import os

import runpod

import gate


async def handler(job):
    given = job["input"]
    mode = given["mode"]
    if mode == "return":
        return given["value"]
    if mode == "raise":
        raise ValueError("boom")
    if mode == "gate":
        return {"word": await gate.wait_async(job)}
    raise KeyError(mode)


config = {"handler": handler}
if "SLOTS" in os.environ:
    config["concurrency_modifier"] = lambda current: int(os.environ["SLOTS"])
runpod.serverless.start(config)
