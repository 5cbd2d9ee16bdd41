// Receives webhooks and believes only those that carry a good signature.
//
//     npm install standardwebhooks
//     WEBHOOK_SECRET=whsec_... node receiver.mjs

import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.WEBHOOK_SECRET);
const seen = new Set();

const server = createServer(async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  // The text as it came: parsed and written again it would be another one.
  const body = Buffer.concat(pieces).toString("utf8");
  let job;
  try {
    // Checks the signature and that it is no older than five minutes.
    job = webhook.verify(body, request.headers);
  } catch (error) {
    console.log(`refused: ${error.message}`);
    response.writeHead(400).end();
    return;
  }
  // The same delivery may come more than once, and has the same id each time.
  const delivery = request.headers["webhook-id"];
  if (!seen.has(delivery)) {
    seen.add(delivery);
    console.log(`${job.status} ${delivery}`);
  }
  response.writeHead(204).end();
});

server.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}/hook`);
});
