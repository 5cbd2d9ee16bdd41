"""A plain handler: what it does is chosen by `mode` in the input."""

import os

import runpod

import gate


def handler(job):
    given = job["input"]
    mode = given["mode"]
    if mode == "return":
        return given["value"]
    if mode == "nan":
        return {"nan": float("nan"), "infinity": float("inf"), "one": 1}
    if mode == "job":
        return {"keys": sorted(job), "s3Config": job.get("s3Config")}
    if mode == "env":
        return {name: os.environ.get(name) for name in given["names"]}
    if mode == "raise":
        raise ValueError('boom "quoted" é')
    if mode == "soft_error":
        return {"error": "soft error", "partial": 1}
    if mode == "refresh":
        return {"refresh_worker": True, "x": 1}
    if mode == "progress":
        runpod.serverless.progress_update(job, given["progress"])
        return {"word": gate.wait(job)}
    if mode == "gate":
        return {"word": gate.wait(job)}
    raise KeyError(mode)


runpod.serverless.start({"handler": handler})
