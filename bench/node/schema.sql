-- What the Node contestants, and pgbench's batches, write to: the columns and keys that a mirror of this traffic needs.

create table webhook (
    webhook_id bigint generated always as identity primary key,
    received_at timestamptz not null default now(),
    account_sid text not null,
    conversation_sid text,
    event_type text not null,
    -- A digest of the body.
    dedupe_key uuid not null unique,
    form text not null
);
create index webhook_of_conversation on webhook (conversation_sid, webhook_id) where conversation_sid is not null;

create table conversation (
    conversation_sid text primary key,
    account_sid text not null,
    service_sid text,
    friendly_name text,
    attributes text,
    state text,
    created_at timestamptz,
    version_at timestamptz not null
);

create table participant (
    conversation_sid text not null,
    participant_sid text not null,
    account_sid text not null,
    address text,
    binding_type text,
    attributes text,
    created_at timestamptz,
    version_at timestamptz not null,
    primary key (conversation_sid, participant_sid)
);

create table message (
    conversation_sid text not null,
    message_sid text not null,
    account_sid text not null,
    message_index bigint,
    author text,
    participant_sid text,
    body text,
    attributes text,
    source text,
    created_at timestamptz,
    version_at timestamptz not null,
    primary key (conversation_sid, message_sid)
);
create index message_in_order on message (conversation_sid, message_index, message_sid);

create table delivery_receipt (
    conversation_sid text not null,
    message_sid text not null,
    delivery_receipt_sid text not null,
    account_sid text not null,
    participant_sid text,
    channel_message_sid text,
    status text not null,
    error_code text,
    created_at timestamptz,
    version_at timestamptz not null,
    primary key (conversation_sid, message_sid, delivery_receipt_sid)
);
