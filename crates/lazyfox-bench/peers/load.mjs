// What the peers in JavaScript share: arguments, callers, worker processes, the line of figures.

import { fork } from "node:child_process";
import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const PAYLOAD_BYTES = 200;
const WARM_UP_SECONDS = 3;
const WARM_UP_JOBS = 1000;
// Nothing takes as long; whoever is not done by then waits for a job that is lost.
const PATIENCE_SECONDS = 600;

/// The arguments. Laid over the settings of the peer: those for this mode, then `--set name=value`.
export function readArguments(usual, forBulk) {
  const { values } = parseArgs({
    options: {
      "database-url": { type: "string" },
      packages: { type: "string", default: "." },
      mode: { type: "string", default: "callers" },
      seconds: { type: "string", default: "10" },
      callers: { type: "string", default: "64" },
      jobs: { type: "string", default: "20000" },
      set: { type: "string", multiple: true, default: [] },
      worker: { type: "boolean", default: false },
    },
  });
  if (!values["database-url"]) throw new Error("--database-url is missing");
  if (!["callers", "bulk"].includes(values.mode)) throw new Error("--mode: callers or bulk");
  const settings = values.mode === "bulk" ? { ...usual, ...forBulk } : { ...usual };
  for (const change of values.set) {
    const [name, value] = change.split("=");
    if (!(name in settings)) throw new Error(`there is no setting ${name}`);
    settings[name] = typeof settings[name] === "string" ? value : JSON.parse(value);
  }
  return {
    databaseUrl: values["database-url"],
    packages: values.packages,
    mode: values.mode,
    seconds: Number(values.seconds),
    callers: Number(values.callers),
    jobs: Number(values.jobs),
    isWorker: values.worker,
    settings,
  };
}

/// A package of the folder that `--packages` names, and its version.
export async function load(packages, name) {
  const require = createRequire(join(packages, "package.json"));
  const module = await import(pathToFileURL(require.resolve(name)));
  const { version } = require(join(packages, "node_modules", name, "package.json"));
  return { module: module.default ?? module, version };
}

/// 200 bytes of JSON that say which job it is.
export function payload(n) {
  const bare = JSON.stringify({ n, fill: "" });
  return { n, fill: "x".repeat(PAYLOAD_BYTES - bare.length) };
}

/// Who waits for which job. A job may be done before its caller knows that it was added.
const waiting = new Map();

function done(n) {
  waiting.get(n)?.();
  waiting.delete(n);
}

function untilDone(n) {
  return new Promise((resolve) => waiting.set(n, resolve));
}

/// Runs the script again as worker processes; resolves when all have said that they are ready.
async function startProcesses(count) {
  const [, script, ...rest] = process.argv;
  const children = Array.from({ length: count }, () => fork(script, [...rest, "--worker"]));
  const ready = children.map(
    (child) =>
      new Promise((resolve, reject) => {
        child.on("message", (message) => {
          if (message === "ready") resolve();
          else message.forEach(done);
        });
        child.on("exit", (code) => reject(new Error(`a worker ended with ${code}`)));
      }),
  );
  await Promise.all(ready);
  return {
    wake: () => children.forEach((child) => child.send("wake")),
    stop: () => children.forEach((child) => child.kill()),
  };
}

/// The other side: tells the first process which jobs are done, as many at once as there are.
async function runAsWorker(peer) {
  let finished = [];
  const send = () => {
    process.send(finished);
    finished = [];
  };
  const { wake } = await peer.work((n) => {
    if (finished.push(n) === 1) setImmediate(send);
  });
  process.on("message", () => wake?.());
  process.on("disconnect", () => process.exit(0));
  process.send("ready");
}

function rounded(value) {
  return Math.round(value * 100) / 100;
}

function percentile(sorted, share) {
  return rounded(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]);
}

/// Callers that each add a job and wait until it is done, again and again.
async function callersMode(peer, workers, { callers, seconds }) {
  const from = performance.now() + WARM_UP_SECONDS * 1000;
  const until = from + seconds * 1000;
  const latencies = [];
  let n = 0;
  const caller = async () => {
    for (let now = performance.now(); now < until; ) {
      const started = now;
      const id = n++;
      const end = untilDone(id);
      await peer.add(id);
      workers.wake?.();
      await end;
      now = performance.now();
      if (now >= from && now < until) latencies.push(now - started);
    }
  };
  await Promise.all(Array.from({ length: callers }, caller));
  latencies.sort((a, b) => a - b);
  return {
    callers,
    seconds,
    jobs: latencies.length,
    jobs_per_s: Math.round(latencies.length / seconds),
    p50_ms: percentile(latencies, 0.5),
    p99_ms: percentile(latencies, 0.99),
  };
}

/// Adds all jobs, then starts the workers and waits until all are done.
async function bulkMode(peer, startWorkers, jobs) {
  const round = async (first, count) => {
    const all = Array.from({ length: count }, (_, at) => first + at);
    const begun = performance.now();
    await peer.addMany(all);
    const added = performance.now();
    const ends = all.map(untilDone);
    const workers = await startWorkers();
    workers.wake?.();
    await Promise.all(ends);
    const drained = performance.now();
    await workers.stop();
    return { add: (added - begun) / 1000, drain: (drained - added) / 1000 };
  };
  await round(0, WARM_UP_JOBS);
  const { add, drain } = await round(WARM_UP_JOBS, jobs);
  return {
    seconds: rounded(add + drain),
    jobs,
    added_per_s: Math.round(jobs / add),
    drained_per_s: Math.round(jobs / drain),
  };
}

/// Measures a peer and prints its line. A peer has `setUp`, `add`, `addMany`, `work` and `close`.
export async function measure(name, version, peer, given) {
  if (given.isWorker) return runAsWorker(peer);
  setTimeout(() => {
    console.error(`${name}: ${waiting.size} jobs were never done`);
    process.exit(1);
  }, (given.seconds + PATIENCE_SECONDS) * 1000);
  await peer.setUp();
  const count = given.settings.workerProcesses;
  const startWorkers = () => (count === 0 ? peer.work(done) : startProcesses(count));
  let figures;
  if (given.mode === "callers") {
    const workers = await startWorkers();
    figures = await callersMode(peer, workers, given);
    await workers.stop();
  } else {
    figures = await bulkMode(peer, startWorkers, given.jobs);
  }
  console.log(
    JSON.stringify({ peer: name, version, mode: given.mode, ...figures, settings: given.settings }),
  );
  await peer.close();
  process.exit(0);
}
