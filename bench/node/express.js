'use strict';
// A receiver as Twilio's pages lead to: express, the middleware of Twilio's own package, pg. Verify, store, upsert, and
// answer, in one transaction a request.

const crypto = require('node:crypto');
const express = require('express');
const twilio = require('twilio');
const { Pool } = require('pg');
const { EVENTS, PATH, upsert } = require('./events');

const { DATABASE_URL, PORT, PUBLIC_BASE_URL } = process.env;
const pool = new Pool({ connectionString: DATABASE_URL, max: 20 });
const app = express();

app.get('/readyz', async (_request, response) => {
  await pool.query('select 1');
  response.send('ready');
});

app.post(
  PATH,
  express.urlencoded({ extended: false }),
  // Reads TWILIO_AUTH_TOKEN.
  twilio.webhook({ validate: true, url: PUBLIC_BASE_URL + PATH }),
  async (request, response) => {
    const event = request.body;
    const kind = EVENTS.get(event.EventType);
    if (!kind) {
      response.status(200).end();
      return;
    }
    const form = JSON.stringify(event);
    const dedupeKey = crypto.createHash('md5').update(form).digest('hex');
    const client = await pool.connect();
    try {
      await client.query('begin');
      const stored = await client.query(
        `insert into webhook (account_sid, conversation_sid, event_type, dedupe_key, form) values ($1, $2, $3, $4, $5)
         on conflict (dedupe_key) do nothing`,
        [event.AccountSid, event.ConversationSid, event.EventType, dedupeKey, form],
      );
      if (stored.rowCount === 1) {
        await client.query(upsert(kind, 1, ''), Object.values(kind.columns(event)));
      }
      await client.query('commit');
      response.status(200).send('');
    } catch (error) {
      await client.query('rollback');
      console.error(error.message);
      response.status(503).send('');
    } finally {
      client.release();
    }
  },
);

app.listen(Number(PORT), '127.0.0.1');
process.on('SIGTERM', () => process.exit(0));
