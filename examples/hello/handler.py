"""The smallest handler: greets whoever the input names."""

import runpod


def handler(job):
    name = job["input"].get("name", "stranger")
    print(f"greeting {name}")
    return {"greeting": f"Hello, {name}!"}


runpod.serverless.start({"handler": handler})
