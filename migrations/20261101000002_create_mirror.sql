-- Our copy of Twilio's state. Owner: src/mirror.
--
-- version_at is the source's own time; version_exact says whether it had milliseconds (webhooks do, REST cuts to
-- seconds). A row without version_at is known only by its children. revision counts our changes to the row.

create table conversation (
    conversation_sid text primary key,
    account_sid text not null,
    service_sid text,
    messaging_service_sid text,
    friendly_name text,
    unique_name text,
    attributes text,
    state text,
    state_at timestamptz,
    state_exact boolean not null default false,
    created_at timestamptz,
    closed_at timestamptz,
    autocreated boolean not null default false,
    version_at timestamptz,
    version_exact boolean not null default false,
    removed_at timestamptz,
    revision bigint not null default 1,
    -- Set when two sources disagree at the same instant, or only children are known; a fetch clears it.
    unverified_since timestamptz,
    verified_at timestamptz,
    first_seen_at timestamptz not null,
    last_message_at timestamptz
);
create index conversation_listing on conversation (first_seen_at, conversation_sid);
create index conversation_by_state on conversation (state, conversation_sid);

create table participant (
    conversation_sid text not null,
    participant_sid text not null,
    account_sid text not null,
    identity text,
    address text,
    proxy_address text,
    projected_address text,
    binding_type text,
    role_sid text,
    attributes text,
    last_read_message_index bigint,
    created_at timestamptz,
    version_at timestamptz not null,
    version_exact boolean not null,
    removed_at timestamptz,
    revision bigint not null default 1,
    primary key (conversation_sid, participant_sid)
);
create index participant_by_projected_address on participant (projected_address, conversation_sid)
    where projected_address is not null and removed_at is null;
create index participant_by_identity on participant (identity, conversation_sid)
    where identity is not null and removed_at is null;

create table message (
    conversation_sid text not null,
    message_sid text not null,
    account_sid text not null,
    message_index bigint,
    author text,
    participant_sid text,
    body text,
    media text,
    attributes text,
    source text,
    created_at timestamptz,
    version_at timestamptz not null,
    version_exact boolean not null,
    removed_at timestamptz,
    revision bigint not null default 1,
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

create table chat_user (
    account_sid text not null,
    user_sid text not null,
    service_sid text,
    identity text,
    friendly_name text,
    role_sid text,
    attributes text,
    is_online boolean,
    is_notifiable boolean,
    created_at timestamptz,
    version_at timestamptz not null,
    primary key (account_sid, user_sid)
);
