// The whole of the public JavaScript client.
// argv: the base URL of the job API, and the folder in which the SDK is installed.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const [baseUrl, sdkDir] = process.argv.slice(2);
const entry = createRequire(join(sdkDir, "package.json")).resolve("runpod-sdk");
const { default: runpodSdk } = await import(pathToFileURL(entry));

const client = runpodSdk("x", { baseUrl });
const sync = client.endpoint("sync");
const held = client.endpoint("async");
const stream = client.endpoint("stream");

async function runSyncGivesTheOutput() {
  const value = { text: "héllo ☃ 😀", list: [1, 2.5, null, true] };
  const done = await sync.runSync({ input: { mode: "return", value } });
  assert.equal(done.status, "COMPLETED");
  assert.equal(done.succeeded, true);
  assert.deepEqual(done.output, value);
}

async function statusTellsSuccessFromFailure() {
  const { id, status } = await sync.run({ input: { mode: "raise" } });
  assert.equal(status, "IN_QUEUE");
  const waited = await sync.statusSync(id);
  assert.equal(waited.completed, true);
  const failed = await sync.status(id);
  assert.equal(failed.status, "FAILED");
  assert.equal(failed.succeeded, false);
  assert.match(failed.error, /boom/);
}

async function streamGivesEveryChunkInOrder() {
  const chunks = [{ n: 0 }, { n: 1 }, { n: 2 }, "☃"];
  const { id } = await stream.run({ input: { before: chunks, after: [] } });
  const seen = [];
  for await (const item of stream.stream(id)) seen.push(item.output);
  assert.deepEqual(seen, chunks);
  assert.equal((await stream.status(id)).status, "COMPLETED");
}

async function queueCanBeSeenPurgedAndCancelled() {
  const gate = createServer().listen(0, "127.0.0.1");
  await once(gate, "listening");
  const { port } = gate.address();

  const arrived = once(gate, "connection");
  const running = await held.run({ input: { mode: "gate", gate: port } });
  const [socket] = await arrived;
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  assert.equal(JSON.parse((await lines.next()).value).job, running.id);

  assert.equal((await held.status(running.id)).status, "IN_PROGRESS");
  const waiting = await held.run({ input: { mode: "gate", gate: port } });
  assert.equal((await held.status(waiting.id)).status, "IN_QUEUE");

  const { jobs } = await held.health();
  assert.equal(jobs.inQueue, 1);
  assert.equal(jobs.inProgress, 1);
  assert.deepEqual(await held.purgeQueue(), { removed: 1, status: "completed" });
  assert.equal((await held.status(waiting.id)).status, "CANCELLED");

  const cancelled = await held.cancel(running.id);
  assert.equal(cancelled.id, running.id);
  assert.equal(cancelled.status, "CANCELLED");
  assert.equal((await held.status(running.id)).status, "CANCELLED");
  // The worker was told as well: its task ended without a word from here.
  assert.equal((await lines.next()).value, "cancelled");
  gate.close();
}

for (const check of [
  runSyncGivesTheOutput,
  statusTellsSuccessFromFailure,
  streamGivesEveryChunkInOrder,
  queueCanBeSeenPurgedAndCancelled,
]) {
  console.log(check.name);
  await check();
}
