"""A handler with every fault that a worker can have: which one is chosen by `mode` in the input.

The variable IMPORT says what happens while the module is imported: `raises`, or a gate to wait at.
The variable SLOTS says how many jobs it takes at the same time.
"""

import os
import signal
import subprocess
import threading

import runpod
from runpod.serverless.modules import worker_state

import gate

deaf = False


def note(given, line):
    with open(given["file"], "a") as file:
        file.write(f"{line}\n")


def handler(job):
    given = job["input"]
    mode = given["mode"]
    if mode == "note":
        note(given, job["id"])
        return {name: os.environ.get(name) for name in given.get("names", [])}
    if mode == "gate":
        return {"word": gate.wait(job)}
    if mode == "deaf":
        global deaf
        deaf = True
        return None
    if mode == "unnamed":
        # Its heartbeats go on, and none of them says that the worker has this job.
        worker_state.JobsProgress().clear()
        return {"word": gate.wait(job)}
    if mode == "exit_once":
        return exit_once(given)
    if mode == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "allocate":
        held = b"x" * (given["mib"] * 1024 * 1024)
        for_ever()
        return len(held)
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        note(given, child.pid)
        return {"word": gate.wait(job)}
    raise KeyError(mode)


def exit_once(given):
    """The main process is gone at once, without a word to what it started."""
    if os.path.exists(given["file"]):
        return {"word": "again"}
    note(given, "exits")
    threading.Thread(target=os._exit, args=(3,)).start()
    for_ever()


def for_ever():
    threading.Event().wait()


def slots(current):
    if deaf and not worker_state.JobsProgress().get_job_list():
        # The job is reported. From here on nobody asks for another one.
        for_ever()
    return int(os.environ.get("SLOTS", "1"))


given = os.environ.get("IMPORT")
if given == "raises":
    raise RuntimeError("the model is not there")
if given is not None:
    gate.wait({"id": "import", "input": {"gate": int(given)}})

config = {"handler": handler}
if "SLOTS" in os.environ or os.environ.get("CAN_BE_DEAF"):
    config["concurrency_modifier"] = slots
runpod.serverless.start(config)
