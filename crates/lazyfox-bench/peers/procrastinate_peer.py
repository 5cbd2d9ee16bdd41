"""procrastinate: asynchronous callers, and workers in this process or in others."""

import argparse
import asyncio
import importlib.metadata
import json
import logging
import sys
import time

import procrastinate
import psycopg_pool

PAYLOAD_BYTES = 200
WARM_UP_SECONDS = 3
WARM_UP_JOBS = 1000
SETTINGS = {
    "workerProcesses": 0,
    "concurrency": 10,
    "callerPoolSize": 10,
    "workerPoolSize": 12,
    "poolCheck": True,
    "deleteJobs": "always",
    "deferAtOnce": 1000,
    "uvloop": False,
}


def read_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--mode", choices=["callers", "bulk"], default="callers")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=20000)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--worker", action="store_true")
    given = parser.parse_args()
    for change in given.set:
        name, value = change.split("=", 1)
        given_type = type(SETTINGS[name])
        SETTINGS[name] = value if given_type is str else json.loads(value)
    return given


def payload(n):
    bare = json.dumps({"n": n, "fill": ""}, separators=(",", ":"))
    return {"n": n, "fill": "x" * (PAYLOAD_BYTES - len(bare))}


def new_app(url, size):
    kwargs = {"conninfo": url, "min_size": size, "max_size": size}
    if not SETTINGS["poolCheck"]:
        def unchecked(check, **rest):
            return psycopg_pool.AsyncConnectionPool(**rest)
        kwargs["pool_factory"] = unchecked
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(**kwargs))

    @app.task(name="job")
    async def job(n, fill):
        pass

    return app, job


class Waiting:
    def __init__(self):
        self.ends = {}

    def until_done(self, n):
        end = asyncio.get_running_loop().create_future()
        self.ends[n] = end
        return end

    def done(self, n):
        end = self.ends.pop(n, None)
        if end is not None:
            end.set_result(None)


class Workers:
    """A worker in this process."""

    def __init__(self, url, done):
        self.app, _ = new_app(url, SETTINGS["workerPoolSize"])
        self.finish_job = self.app.job_manager.finish_job
        self.app.job_manager.finish_job = self.finish
        self.done = done

    async def finish(self, job, **kwargs):
        await self.finish_job(job=job, **kwargs)
        self.done(job.task_kwargs["n"])

    async def start(self):
        await self.app.open_async()
        self.task = asyncio.create_task(
            self.app.run_worker_async(
                concurrency=SETTINGS["concurrency"],
                delete_jobs=SETTINGS["deleteJobs"],
                install_signal_handlers=False,
            )
        )

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.app.close_async()


class Processes:
    """Workers in processes of their own, that say on their output which jobs are done."""

    def __init__(self, done):
        self.done = done

    async def start(self):
        arguments = [sys.executable, *sys.argv, "--worker"]
        self.children = [
            await asyncio.create_subprocess_exec(
                *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
            )
            for _ in range(SETTINGS["workerProcesses"])
        ]
        for child in self.children:
            await child.stdout.readline()
        self.readers = [asyncio.create_task(self.read(child)) for child in self.children]

    async def read(self, child):
        async for line in child.stdout:
            for n in json.loads(line):
                self.done(n)

    async def stop(self):
        for child in self.children:
            child.stdin.close()
        await asyncio.gather(*(child.wait() for child in self.children), *self.readers)


async def run_as_worker(given):
    finished = []
    loop = asyncio.get_running_loop()

    def send():
        print(json.dumps(finished), flush=True)
        finished.clear()

    def done(n):
        finished.append(n)
        if len(finished) == 1:
            loop.call_soon(send)

    worker = Workers(given.database_url, done)
    await worker.start()
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    await worker.stop()


def percentile(ordered, share):
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000, 2)


async def callers_mode(given, task, waiting):
    begin = time.perf_counter() + WARM_UP_SECONDS
    until = begin + given.seconds
    latencies = []
    count = 0

    async def caller():
        nonlocal count
        now = time.perf_counter()
        while now < until:
            started = now
            n = count
            count += 1
            end = waiting.until_done(n)
            await task.defer_async(**payload(n))
            await end
            now = time.perf_counter()
            if begin <= now < until:
                latencies.append(now - started)

    await asyncio.gather(*(caller() for _ in range(given.callers)))
    latencies.sort()
    return {
        "callers": given.callers,
        "seconds": given.seconds,
        "jobs": len(latencies),
        "jobs_per_s": round(len(latencies) / given.seconds),
        "p50_ms": percentile(latencies, 0.5),
        "p99_ms": percentile(latencies, 0.99),
    }


async def bulk_round(task, new_workers, waiting, numbers):
    at_once = SETTINGS["deferAtOnce"]
    begun = time.perf_counter()
    for at in range(0, len(numbers), at_once):
        await task.batch_defer_async(*(payload(n) for n in numbers[at : at + at_once]))
    added = time.perf_counter()
    ends = [waiting.until_done(n) for n in numbers]
    workers = new_workers()
    await workers.start()
    await asyncio.gather(*ends)
    drained = time.perf_counter()
    await workers.stop()
    return added - begun, drained - added


async def bulk_mode(given, task, new_workers, waiting):
    await bulk_round(task, new_workers, waiting, range(WARM_UP_JOBS))
    numbers = range(WARM_UP_JOBS, WARM_UP_JOBS + given.jobs)
    add, drain = await bulk_round(task, new_workers, waiting, numbers)
    return {
        "seconds": round(add + drain, 2),
        "jobs": given.jobs,
        "added_per_s": round(given.jobs / add),
        "drained_per_s": round(given.jobs / drain),
    }


async def measure(given):
    waiting = Waiting()
    app, task = new_app(given.database_url, SETTINGS["callerPoolSize"])

    def new_workers():
        if SETTINGS["workerProcesses"]:
            return Processes(waiting.done)
        return Workers(given.database_url, waiting.done)

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        if given.mode == "callers":
            workers = new_workers()
            await workers.start()
            figures = await callers_mode(given, task, waiting)
            await workers.stop()
        else:
            figures = await bulk_mode(given, task, new_workers, waiting)
    version = importlib.metadata.version("procrastinate")
    line = {"peer": "procrastinate", "version": version, "mode": given.mode}
    line = {**line, **figures, "settings": SETTINGS}
    print(json.dumps(line, separators=(",", ":")))


def main():
    # It warns that an app of the main module cannot be found by its command line, which is not used.
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    given = read_arguments()
    if SETTINGS["uvloop"]:
        import uvloop

        uvloop.install()
    asyncio.run(run_as_worker(given) if given.worker else measure(given))


main()
