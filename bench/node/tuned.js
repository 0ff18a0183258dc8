'use strict';
// As fast as one Node process seems to get with these packages: fastify, the form as it came, Twilio's validateRequest,
// and one prepared statement for store and upsert, which is a transaction by itself: one round trip a request.

const crypto = require('node:crypto');
const querystring = require('node:querystring');
const fastify = require('fastify');
const { Pool } = require('pg');
// The function alone: the package's entry loads every product's client.
const { validateRequest } = require('twilio/lib/webhooks/webhooks');
const { EVENTS, PATH, upsert } = require('./events');

const { DATABASE_URL, PORT, PUBLIC_BASE_URL, TWILIO_AUTH_TOKEN } = process.env;
const URL = PUBLIC_BASE_URL + PATH;
const pool = new Pool({ connectionString: DATABASE_URL, max: Number(process.env.POOL || 32) });
const app = fastify({ logger: false });

// Prepared once on each connection, by its name.
for (const [type, kind] of EVENTS) {
  const text = `with stored as (
      insert into webhook (account_sid, conversation_sid, event_type, dedupe_key, form) values ($1, $2, $3, $4, $5)
      on conflict (dedupe_key) do nothing returning 1
    ) ${upsert(kind, 6, ' from stored')}`;
  EVENTS.set(type, { ...kind, statement: { name: kind.table, text } });
}

app.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' }, (_request, body, done) => {
  done(null, body);
});

app.get('/readyz', async () => {
  await pool.query('select 1');
  return 'ready';
});

app.post(PATH, async (request, reply) => {
  const form = request.body;
  const event = querystring.parse(form);
  if (!validateRequest(TWILIO_AUTH_TOKEN, request.headers['x-twilio-signature'], URL, event)) {
    return reply.code(403).send('');
  }
  const kind = EVENTS.get(event.EventType);
  if (kind) {
    const dedupeKey = crypto.createHash('md5').update(form).digest('hex');
    const values = [event.AccountSid, event.ConversationSid, event.EventType, dedupeKey, form];
    values.push(...Object.values(kind.columns(event)));
    try {
      await pool.query({ ...kind.statement, values });
    } catch (error) {
      console.error(error.message);
      return reply.code(503).send('');
    }
  }
  return reply.code(200).send('');
});

app.listen({ port: Number(PORT), host: '127.0.0.1' });
process.on('SIGTERM', () => process.exit(0));
