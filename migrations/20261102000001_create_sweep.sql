-- Sweeps: comparing the mirror with Twilio. Owner: src/sweep.

-- One pass over an account's conversations, or over some of them. What it needs to go on after a crash is here.
create table sweep_run (
    sweep_run_id uuid primary key,
    account_sid text not null,
    scope text not null check (scope in ('account', 'conversations')),
    -- Walks everything, and reads the receipts of every message.
    everything boolean not null,
    -- `completed` means that every conversation which Twilio lists was looked at. `incomplete` got to the end, and could
    -- not read some. `abandoned` gave way to another run.
    state text not null default 'running' check (state in ('running', 'completed', 'incomplete', 'abandoned')),
    -- Where the next page of Twilio's list is. Null before the first page and after the last one.
    list_position text,
    listed_all boolean not null default false,
    started_at timestamptz not null,
    finished_at timestamptz,
    -- Who works on it now, and until when that counts without a sign of life.
    lease_token uuid,
    lease_expires_at timestamptz,
    requests bigint not null default 0,
    probed bigint not null default 0,
    walked bigint not null default 0,
    left_alone bigint not null default 0,
    unsettled bigint not null default 0,
    failed bigint not null default 0,
    compared bigint not null default 0,
    missing bigint not null default 0,
    stale bigint not null default 0,
    gone bigint not null default 0,
    extra bigint not null default 0,
    -- Why the last attempt stopped. Never anybody's words or numbers.
    last_error text,
    constraint sweep_run_finished_unless_running check ((state = 'running') = (finished_at is null)),
    constraint sweep_run_lease_whole check ((lease_token is null) = (lease_expires_at is null)),
    constraint sweep_run_not_leased_when_finished check (state = 'running' or lease_token is null)
);
create unique index sweep_run_one_running on sweep_run (account_sid) where state = 'running' and scope = 'account';
create index sweep_run_newest on sweep_run (account_sid, started_at desc);

-- What is known of the verification of one conversation.
create table conversation_check (
    conversation_sid text primary key,
    account_sid text not null,
    -- The run that looked at it last, whatever came of it. Null until the first look has ended.
    sweep_run_id uuid,
    -- As of when mirror and Twilio were equal: the time before the reads began. Null: never.
    verified_at timestamptz,
    verified_by text check (verified_by in ('probe', 'walk')),
    -- The start of the last walk that left nothing open.
    walked_at timestamptz,
    -- What the last verification compared.
    participants bigint not null default 0,
    messages bigint not null default 0,
    receipts bigint not null default 0,
    -- What all sweeps together found: there and not here; older here; here and not there, removed and receipts.
    missing bigint not null default 0,
    stale bigint not null default 0,
    gone bigint not null default 0,
    extra bigint not null default 0,
    constraint conversation_check_verified_whole check ((verified_at is null) = (verified_by is null))
);
create index conversation_check_of_account on conversation_check (account_sid, verified_at);
