// graphile-worker. It says `job:complete` before the job is completed in the database, so what
// counts as done here is the answer to the statement that completes it.

import { load, measure, payload, readArguments } from "./load.mjs";

const given = readArguments({
  workerProcesses: 0,
  concurrentJobs: 24,
  localQueueSize: 500,
  refetchDelayMs: -1,
  completeJobBatchDelay: 0,
  workerPoolSize: 25,
  callerPoolSize: 10,
  add: "addJob",
  addJobsAtOnce: 20000,
  signal: "written",
}, {});
const { settings } = given;
const { module: graphile, version } = await load(given.packages, "graphile-worker");
const { module: pg } = await load(given.packages, "pg");

const logger = new graphile.Logger(() => () => {});
const fail = (error) => {
  throw error;
};
let utils;
let callerPool;

/// graphile-worker asks for handlers of errors on a pool and on its clients.
function newPool(max) {
  const pool = new pg.Pool({ connectionString: given.databaseUrl, max });
  pool.on("error", fail);
  pool.on("connect", (client) => client.on("error", fail));
  return pool;
}

/// A pool that tells when a statement of graphile-worker that completes jobs has been committed.
function watchedPool(onWritten) {
  const pool = newPool(settings.workerPoolSize);
  pool.on("connect", (client) => {
    const query = client.query.bind(client);
    client.query = (config, ...rest) => {
      const result = query(config, ...rest);
      if (config?.name?.startsWith("complete_job")) {
        result.then(() => onWritten([config.values[0]].flat()));
      }
      return result;
    };
  });
  return pool;
}

const peer = {
  async setUp() {
    callerPool = newPool(settings.callerPoolSize);
    utils = await graphile.makeWorkerUtils({ pgPool: callerPool, logger });
    await utils.migrate();
  },

  add(n) {
    if (settings.add === "addJob") return utils.addJob("job", payload(n));
    return callerPool.query({
      name: "add",
      text: "select graphile_worker.add_job('job', $1::json)",
      values: [payload(n)],
    });
  },

  async addMany(numbers) {
    const specs = numbers.map((n) => ({ identifier: "job", payload: payload(n) }));
    for (let at = 0; at < specs.length; at += settings.addJobsAtOnce) {
      await utils.addJobs(specs.slice(at, at + settings.addJobsAtOnce));
    }
  },

  async work(done) {
    const numbers = new Map();
    const pgPool = watchedPool((ids) => {
      if (settings.signal !== "written") return;
      for (const id of ids) {
        done(numbers.get(id));
        numbers.delete(id);
      }
    });
    const taskList = { job: ({ n }, { job }) => void numbers.set(job.id, n) };
    const localQueue = { size: settings.localQueueSize };
    const durationMs = settings.refetchDelayMs;
    if (durationMs >= 0) localQueue.refetchDelay = { durationMs };
    const runner = await graphile.run({
      pgPool,
      taskList,
      logger,
      noHandleSignals: true,
      preset: {
        worker: {
          concurrentJobs: settings.concurrentJobs,
          localQueue,
          completeJobBatchDelay: settings.completeJobBatchDelay,
          failJobBatchDelay: settings.completeJobBatchDelay,
        },
      },
    });
    if (settings.signal === "event") {
      runner.events.on("job:complete", ({ job }) => done(job.payload.n));
    }
    return {
      async stop() {
        await runner.stop();
        await pgPool.end();
      },
    };
  },

  async close() {
    await utils.release();
    await callerPool.end();
  },
};

await measure("graphile-worker", version, peer, given);
