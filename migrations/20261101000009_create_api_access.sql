-- Who may call the API, and what was answered to a call that may be repeated. Owner: src/api.

create table api_key (
    api_key_id uuid primary key,
    name text not null,
    -- SHA-256 of the key; the key itself is shown once and kept nowhere.
    key_hash bytea not null,
    scopes text[] not null,
    created_at timestamptz not null,
    last_used_at timestamptz,
    revoked_at timestamptz,
    constraint api_key_hash unique (key_hash),
    constraint api_key_has_scopes check (cardinality(scopes) > 0)
);

create table idempotency_key (
    api_key_id uuid not null references api_key,
    key text not null,
    request_hash bytea not null,
    -- Null only until the transaction that answers the first call commits: nobody else sees that.
    status smallint,
    response bytea,
    location text,
    created_at timestamptz not null,
    -- A second call waits here until the first has committed, or has given up.
    primary key (api_key_id, key)
);
create index idempotency_key_age on idempotency_key (created_at);
