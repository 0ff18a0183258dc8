-- The durable work queue. Owner: src/queue.

create table task (
    task_id bigint generated always as identity primary key,
    kind text not null,
    -- Tasks with the same key run one after the other, oldest first.
    order_key text not null,
    -- At most one waiting task of a kind has this key; putting another moves that one.
    unique_key text,
    payload jsonb not null,
    state text not null default 'ready' check (state in ('ready', 'running', 'dead')),
    run_at timestamptz not null,
    attempts integer not null default 0,
    attempts_max integer not null check (attempts_max > 0),
    lease_token uuid,
    lease_expires_at timestamptz,
    last_error text,
    created_at timestamptz not null,
    buried_at timestamptz,
    constraint task_leased_if_running check ((state = 'running') = (lease_token is not null)),
    constraint task_lease_whole check ((lease_token is null) = (lease_expires_at is null)),
    constraint task_buried_if_dead check ((state = 'dead') = (buried_at is not null))
);
create unique index task_unique_key on task (kind, unique_key) where state = 'ready' and unique_key is not null;
create index task_due on task (run_at, task_id) where state = 'ready';
create index task_expired on task (lease_expires_at) where state = 'running';
create index task_in_order on task (order_key, task_id) where state <> 'dead';
-- Decides where two workers claim at once and one does not yet see what the other did.
create unique index task_one_running_per_order_key on task (order_key) where state = 'running';
create index task_dead on task (task_id) where state = 'dead';
