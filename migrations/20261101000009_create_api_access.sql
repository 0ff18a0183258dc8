-- Who may call the API, and what was answered to a repeated call. Owner: src/api.

create table api_key (
    api_key_id uuid primary key,
    name text not null,
    -- SHA-256 of the key; the key itself is shown once and kept nowhere.
    key_hash bytea not null unique,
    scopes text[] not null,
    created_at timestamptz not null,
    last_used_at timestamptz,
    revoked_at timestamptz
);

create table idempotency_key (
    api_key_id uuid not null,
    key text not null,
    request_hash bytea not null,
    -- Null while the first call is being answered.
    status smallint,
    response bytea,
    location text,
    locked_until timestamptz not null,
    created_at timestamptz not null,
    primary key (api_key_id, key)
);
create index idempotency_key_age on idempotency_key (created_at);
