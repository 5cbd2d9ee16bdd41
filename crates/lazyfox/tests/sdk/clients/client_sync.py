"""The whole of the public Python client, against the server at RUNPOD_ENDPOINT_BASE_URL."""

import runpod

from gate import DEADLINE_S, Gate

runpod.api_key = "x"

sync = runpod.Endpoint("sync")
held = runpod.Endpoint("async")
stream = runpod.Endpoint("stream")


def run_sync_gives_the_output():
    value = {"text": "héllo ☃ 😀", "list": [1, 2.5, None, True]}
    assert sync.run_sync({"mode": "return", "value": value}, timeout=DEADLINE_S) == value
    # The client wraps what has no input of its own, and leaves the rest as it is.
    assert sync.run_sync({"input": {"mode": "return", "value": 7}}, timeout=DEADLINE_S) == 7


def run_gives_a_job_to_wait_for():
    job = sync.run({"mode": "return", "value": [1, 2]})
    assert job.output(timeout=DEADLINE_S) == [1, 2]
    assert job.status() == "COMPLETED"


def a_handler_that_raises_is_failed():
    job = sync.run({"mode": "raise"})
    assert job.output(timeout=DEADLINE_S) is None
    assert job.status() == "FAILED"


def stream_gives_every_chunk_in_order():
    chunks = [{"n": n} for n in range(5)] + ["☃"]
    job = stream.run({"before": chunks, "after": []})
    assert list(job.stream()) == chunks
    assert job.status() == "COMPLETED"


def queue_can_be_seen_purged_and_cancelled():
    gate = Gate()
    running = held.run({"mode": "gate", "gate": gate.port})
    arrival = gate.accept()
    assert running.status() == "IN_PROGRESS"
    # The only worker is held at the gate, so this one stays where it is.
    waiting = held.run({"mode": "gate", "gate": gate.port})
    assert waiting.status() == "IN_QUEUE"

    jobs = held.health()["jobs"]
    assert (jobs["inQueue"], jobs["inProgress"]) == (1, 1), jobs
    assert held.purge_queue() == {"removed": 1, "status": "completed"}
    assert waiting.status() == "CANCELLED"
    assert held.health()["jobs"]["inQueue"] == 0

    answer = running.cancel()
    assert (answer["id"], answer["status"]) == (running.job_id, "CANCELLED"), answer
    assert running.status() == "CANCELLED"
    # The worker was told as well: its task ended without a word from here.
    assert arrival.end() == "cancelled"


for check in (
    run_sync_gives_the_output,
    run_gives_a_job_to_wait_for,
    a_handler_that_raises_is_failed,
    stream_gives_every_chunk_in_order,
    queue_can_be_seen_purged_and_cancelled,
):
    print(check.__name__, flush=True)
    check()
