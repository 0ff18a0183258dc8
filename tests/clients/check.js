// Twilio's official Node library against the sandbox, with nothing changed but the host.
//
// The main way of a group text, lists over several pages, errors, and webhooks judged by Twilio's own validator. The
// Python program beside this one goes through the other resources. Ends with 0 if all is as with Twilio.

import assert from "node:assert/strict";
import http from "node:http";
import querystring from "node:querystring";
import { setTimeout as sleep } from "node:timers/promises";
import twilio from "twilio";

const { SANDBOX_URL, SANDBOX_ACCOUNT_SID, SANDBOX_AUTH_TOKEN, SANDBOX_SERVICE_SID } = process.env;
const [LINE, DEE, EVE, FAY] = ["+15017122662", "+15555550201", "+15555550202", "+15555550203"];

const hooks = [];
const server = http.createServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) body += chunk;
  const params = querystring.parse(body);
  const url = `http://127.0.0.1:${server.address().port}${request.url}`;
  const signature = request.headers["x-twilio-signature"];
  hooks.push({ params, valid: twilio.validateRequest(SANDBOX_AUTH_TOKEN, signature, url, params) });
  response.end();
});
await new Promise((listening) => server.listen(0, "127.0.0.1", listening));

async function until(what, look) {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const found = await look();
    if (found) return found;
    await sleep(50);
  }
  throw new Error(`waited in vain for ${what}`);
}

async function refused(code, status, call) {
  await assert.rejects(call, (error) => error.code === code && error.status === status);
}

async function text(sender, to, body) {
  const credentials = Buffer.from(`${SANDBOX_ACCOUNT_SID}:${SANDBOX_AUTH_TOKEN}`).toString("base64");
  const answer = await fetch(`${SANDBOX_URL}/sandbox/v1/handsets/${encodeURIComponent(sender)}/messages`, {
    method: "POST",
    headers: { Authorization: `Basic ${credentials}`, "Content-Type": "application/json" },
    body: JSON.stringify({ to, body }),
  });
  return answer.json();
}

const client = twilio(SANDBOX_ACCOUNT_SID, SANDBOX_AUTH_TOKEN);
client.conversations.baseUrl = SANDBOX_URL;
const v1 = client.conversations.v1;
const service = v1.services(SANDBOX_SERVICE_SID);

const filters = ["onConversationAdded", "onConversationStateUpdated", "onMessageAdded", "onDeliveryUpdated"];
await service.configuration.webhooks().update({
  postWebhookUrl: `http://127.0.0.1:${server.address().port}/hooks`,
  method: "POST",
  filters,
});
await v1.addressConfigurations.create({ type: "sms", address: LINE, "autoCreation.enabled": true });

const founders = [
  { messaging_binding: { address: DEE } },
  { messaging_binding: { address: EVE } },
  { identity: "desk-1", messaging_binding: { projected_address: LINE } },
];
const made = await service.conversationWithParticipants.create({
  participant: founders.map((founder) => JSON.stringify(founder)),
  xTwilioWebhookEnabled: "true",
});
assert.equal(made.state, "initializing");
const group = service.conversations(made.sid);
await until("active", async () => (await group.fetch()).state === "active");

const sent = await group.messages.create({ author: "desk-1", body: "Welcome", xTwilioWebhookEnabled: "true" });
await until("receipts", async () => (await group.messages(sent.sid).fetch()).delivery?.delivered === "all");
assert.equal((await group.messages(sent.sid).deliveryReceipts.list()).length, 2);
await refused(50513, 400, () => group.messages.create({ body: "from system" }));

const line = (await group.participants.list()).find((one) => one.messagingBinding?.projected_address);
await group.participants(line.sid).update({ identity: "desk-2" });
assert.equal((await group.participants("desk-2").fetch()).sid, line.sid);

const arrived = await text(DEE, [FAY, EVE, LINE], "with Fay");
assert.equal(arrived.outcome, "conversation_created");
const other = service.conversations(arrived.conversation_sid);
await until("autocreation", async () => (await other.fetch()).state === "active");

for (let number = 0; number < 5; number += 1) {
  await group.messages.create({ author: "desk-2", body: `message ${number}` });
}
const bodies = (await group.messages.list({ order: "desc", pageSize: 2 })).map((one) => one.body);
assert.deepEqual(bodies.slice(0, 2), ["message 4", "message 3"]);
assert.equal(bodies.length, 6);
await refused(50438, 409, () =>
  service.conversationWithParticipants.create({ participant: founders.map((one) => JSON.stringify(one)) }),
);
await refused(20404, 404, () => service.conversations("nothing").fetch());

await until("the repeated key", () => hooks.find(({ params }) => Array.isArray(params["MessagingBinding.Address"])));
assert.ok(hooks.every(({ valid }) => valid));
server.close();
server.closeAllConnections();
console.log(`node: all as with Twilio, ${hooks.length} webhooks valid`);
