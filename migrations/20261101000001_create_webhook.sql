-- Webhooks as received: what Twilio signed, kept byte for byte. Owner: src/inbox.

create table webhook (
    webhook_id bigint generated always as identity primary key,
    received_at timestamptz not null,
    account_sid text not null,
    conversation_sid text,
    event_type text not null,
    -- Truncated SHA-256 over the signed content's identity; see twilio::webhook::dedupe_key.
    dedupe_key uuid not null,
    method text not null check (method in ('GET', 'POST')),
    -- The form as it came: the body of a POST, the query of a GET.
    form bytea not null,
    idempotency_token text,
    -- Which of the account's tokens signed it, and which reading of the URL (1 is the configured one).
    token_index smallint not null,
    url_candidate text not null,
    -- Conversations are spread over lanes; a lane is projected by one worker at a time, in order.
    lane smallint not null,
    state text not null default 'pending' check (state in ('pending', 'projected', 'set_aside')),
    reason text,
    settled_at timestamptz,
    constraint webhook_dedupe_key unique (dedupe_key),
    constraint webhook_reason_if_set_aside check ((state = 'set_aside') = (reason is not null)),
    constraint webhook_settled_unless_pending check ((state = 'pending') = (settled_at is null))
);
create index webhook_pending on webhook (lane, webhook_id) where state = 'pending';
create index webhook_set_aside on webhook (webhook_id) where state = 'set_aside';
create index webhook_of_conversation on webhook (conversation_sid, webhook_id) where conversation_sid is not null;

-- What came in mode `observe` and did not verify. It never touches the mirror and may be emptied at any time.
create table quarantined_webhook (
    quarantined_webhook_id bigint generated always as identity primary key,
    received_at timestamptz not null,
    account_sid text not null,
    method text not null check (method in ('GET', 'POST')),
    form bytea not null,
    refusal text not null
);

-- One row a lane: the lock of whoever projects it.
create table projection_lane (
    lane smallint primary key
);
insert into projection_lane (lane) select generate_series(0, 15);
