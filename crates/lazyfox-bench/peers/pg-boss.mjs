// pg-boss: workers of its own making, or loops of `fetch` and `complete`.

import { load, measure, payload, readArguments } from "./load.mjs";

const QUEUE = "peers";
// A loop that was not woken looks all the same: a wake is for speed, and not the only way.
const FALLBACK_MS = 50;

const given = readArguments({
  workerProcesses: 0,
  worker: "fetch",
  workers: 2,
  batchSize: 64,
  priority: true,
  poolSize: 10,
  pollingIntervalSeconds: 0.5,
  insertAtOnce: 20000,
}, {});
const { settings } = given;
const { module: exported, version } = await load(given.packages, "pg-boss");
const { module: pg } = await load(given.packages, "pg");
const PgBoss = exported.PgBoss ?? exported;
const major = Number(version.split(".")[0]);

/// A database of our own for pg-boss, that tells which jobs a statement has completed.
function watchedDb(onCompleted) {
  const pool = new pg.Pool({ connectionString: given.databaseUrl, max: settings.poolSize });
  return {
    pool,
    async executeSql(text, values) {
      const result = await pool.query(text, values);
      if (/completed_on = now\(\)/.test(text) && values) onCompleted(values[1]);
      return result;
    },
  };
}

async function start(onCompleted) {
  const db = watchedDb(onCompleted);
  const boss = new PgBoss({ db });
  boss.on("error", (error) => console.error(error));
  await boss.start();
  const stop = async () => {
    await boss.stop({ graceful: false });
    await db.pool.end();
  };
  return { boss, stop };
}

let sender;

/// Loops that take what is there; one that finds nothing waits until it is woken.
function fetchLoops(boss, done) {
  let stopped = false;
  let wakes = 0;
  let sleeping = [];
  const sleep = () =>
    new Promise((resolve) => {
      sleeping.push(resolve);
      setTimeout(resolve, FALLBACK_MS);
    });
  const wake = () => {
    wakes++;
    const woken = sleeping;
    sleeping = [];
    woken.forEach((resolve) => resolve());
  };
  const loop = async () => {
    while (!stopped) {
      const seen = wakes;
      const { batchSize, priority } = settings;
      const jobs = await boss.fetch(QUEUE, { batchSize, priority });
      if (jobs.length > 0) {
        const ids = jobs.map((job) => job.id);
        await boss.complete(QUEUE, ids);
        jobs.forEach((job) => done(job.data.n));
      } else if (wakes === seen) {
        await sleep();
      }
    }
  };
  const loops = Array.from({ length: settings.workers }, loop);
  return {
    wake,
    async stop() {
      stopped = true;
      wake();
      await Promise.all(loops);
    },
  };
}

const peer = {
  async setUp() {
    sender = await start(() => {});
    await sender.boss.createQueue(QUEUE);
  },

  add: (n) => sender.boss.send(QUEUE, payload(n)),

  async addMany(numbers) {
    const jobs = numbers.map((n) => ({ name: QUEUE, data: payload(n) }));
    for (let at = 0; at < jobs.length; at += settings.insertAtOnce) {
      const some = jobs.slice(at, at + settings.insertAtOnce);
      await (major < 11 ? sender.boss.insert(some) : sender.boss.insert(QUEUE, some));
    }
  },

  async work(done) {
    const numbers = new Map();
    const { boss, stop } = await start((ids) => {
      for (const id of ids) {
        if (numbers.has(id)) done(numbers.get(id));
        numbers.delete(id);
      }
    });
    if (settings.worker === "fetch") {
      const loops = fetchLoops(boss, done);
      return { wake: loops.wake, stop: () => loops.stop().then(stop) };
    }
    const { batchSize, pollingIntervalSeconds, priority } = settings;
    const ids = [];
    for (let count = 0; count < settings.workers; count++) {
      const options = { batchSize, pollingIntervalSeconds, priority };
      ids.push(
        await boss.work(QUEUE, options, async (jobs) => {
          jobs.forEach((job) => numbers.set(job.id, job.data.n));
        }),
      );
    }
    const wake = () => ids.forEach((id) => boss.notifyWorker(id));
    return { wake: settings.worker === "notified" ? wake : undefined, stop };
  },

  close: () => sender.stop(),
};

await measure("pg-boss", version, peer, given);
