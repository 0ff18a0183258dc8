-- The log: what happened, to what, by whom, through what, because of what. Append-only. Owner: src/events.
--
-- Readers go by (commit_xid, event_id) and stop before the oldest transaction that still writes, so that an entry
-- which commits late is never skipped. Transaction numbers start anew when a dump is loaded into another cluster;
-- xid_offset lifts them above what the log already holds.

create table log_origin (
    only_row boolean primary key default true check (only_row),
    xid_offset bigint not null default 0
);
insert into log_origin default values;

create function log_xid() returns bigint language sql stable
    return (select pg_current_xact_id()::text::bigint + xid_offset from log_origin);

create function log_horizon() returns bigint language sql stable
    return (select pg_snapshot_xmin(pg_current_snapshot())::text::bigint + xid_offset from log_origin);

create table event (
    commit_xid bigint not null default log_xid(),
    event_id bigint generated always as identity,
    type text not null,
    account_sid text,
    conversation_sid text,
    subject text not null,
    actor text,
    via text not null check (via in ('webhook', 'rest', 'api', 'timer', 'sweep', 'cli', 'worker')),
    cause text,
    occurred_at timestamptz not null,
    recorded_at timestamptz not null,
    -- JSON as text: what is sealed later must be the very bytes that are stored.
    data text not null,
    primary key (commit_xid, event_id)
);
create index event_of_conversation on event (conversation_sid, commit_xid, event_id) where conversation_sid is not null;
