"""An async generator whose chunks are also the output of the job."""

import runpod


async def handler(job):
    for chunk in job["input"]["chunks"]:
        yield chunk


runpod.serverless.start({"handler": handler, "return_aggregate_stream": True})
