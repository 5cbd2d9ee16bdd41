"""The public asyncio client, against the server at RUNPOD_ENDPOINT_BASE_URL."""

import asyncio

import runpod
from runpod.http_client import AsyncClientSession

from gate import DEADLINE_S, Gate

runpod.api_key = "x"


async def outputs_arrive(session):
    endpoint = runpod.AsyncioEndpoint("sync", session)
    value = {"text": "héllo ☃ 😀", "list": [1, 2.5, None, True]}
    job = await endpoint.run({"mode": "return", "value": value})
    assert await job.output(timeout=DEADLINE_S) == value
    assert await job.status() == "COMPLETED"

    job = await endpoint.run({"mode": "raise"})
    assert await job.output(timeout=DEADLINE_S) is None
    assert await job.status() == "FAILED"


async def stream_gives_every_chunk_in_order(session):
    chunks = [{"n": n} for n in range(5)] + ["☃"]
    job = await runpod.AsyncioEndpoint("stream", session).run({"before": chunks, "after": []})
    assert [chunk async for chunk in job.stream()] == chunks
    assert await job.status() == "COMPLETED"


async def queue_can_be_seen_purged_and_cancelled(session):
    endpoint = runpod.AsyncioEndpoint("async", session)
    gate = Gate()
    running = await endpoint.run({"mode": "gate", "gate": gate.port})
    arrival = await asyncio.to_thread(gate.accept)
    assert await running.status() == "IN_PROGRESS"
    waiting = await endpoint.run({"mode": "gate", "gate": gate.port})
    assert await waiting.status() == "IN_QUEUE"

    jobs = (await endpoint.health())["jobs"]
    assert (jobs["inQueue"], jobs["inProgress"]) == (1, 1), jobs
    assert await endpoint.purge_queue() == {"removed": 1, "status": "completed"}
    assert await waiting.status() == "CANCELLED"

    answer = await running.cancel()
    assert (answer["id"], answer["status"]) == (running.job_id, "CANCELLED"), answer
    assert await running.status() == "CANCELLED"
    assert await asyncio.to_thread(arrival.end) == "cancelled"


async def main():
    async with AsyncClientSession() as session:
        for check in (
            outputs_arrive,
            stream_gives_every_chunk_in_order,
            queue_can_be_seen_purged_and_cancelled,
        ):
            print(check.__name__, flush=True)
            await check(session)


asyncio.run(main())
