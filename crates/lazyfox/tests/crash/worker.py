"""A worker that needs nothing but Python: it speaks the wire protocol as the public SDK does, and waits
in every job at a gate of the test, saying who it is, for the word that becomes its output."""

import json
import os
import socket
import time
import urllib.error
import urllib.request

TAKE = os.environ["RUNPOD_WEBHOOK_GET_JOB"] + "&job_in_progress=0"
DONE = os.environ["RUNPOD_WEBHOOK_POST_OUTPUT"] + "&isStream=false"
HEADERS = {
    "Authorization": os.environ["RUNPOD_AI_API_KEY"],
    "User-Agent": "RunPod-Python-SDK/1.12.0 (Linux; test) Language/Python",
}


def call(url, body=None):
    request = urllib.request.Request(url, data=body, headers=HEADERS)
    with urllib.request.urlopen(request, timeout=90) as answer:
        return answer.read()


def take():
    """The next job, or nothing; while there is no server the SDK asks without a pause, and logs it."""
    try:
        return call(TAKE)
    except urllib.error.HTTPError as error:
        time.sleep(5 if error.code == 429 else 0)
    except OSError:
        time.sleep(0.05)
    return b""


def work(job):
    with socket.create_connection(("127.0.0.1", job["input"]["gate"])) as gate:
        hello = {"pid": os.getpid(), "worker": os.environ["RUNPOD_POD_ID"], "job": job["id"]}
        gate.sendall(json.dumps(hello).encode() + b"\n")
        word = gate.makefile().readline().strip()
    body = json.dumps({"output": {"word": word}}).encode()
    call(DONE.replace("$ID", job["id"]), body)


while True:
    answer = take()
    if answer:
        work(json.loads(answer))
