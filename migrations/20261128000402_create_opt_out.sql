-- Members who want no more messages from a number of ours, and what comes of it in each group. Owner: src/opt_out.

-- A stretch of time in which a member had opted out of a number. The rows of a member and a number are its history; at most
-- one is open.
create table opt_out (
    opt_out_id uuid primary key,
    account_sid text not null,
    line text not null,
    -- The member's number, or what stands for it since it was erased.
    address text not null,
    since timestamptz not null,
    source text not null check (source in ('keyword', 'receipt', 'api')),
    -- The message or receipt that told it, and where it was.
    evidence text,
    conversation_sid text,
    set_by text,
    cleared_at timestamptz,
    cleared_source text check (cleared_source in ('keyword', 'api')),
    cleared_evidence text,
    cleared_by text,
    recorded_at timestamptz not null,
    constraint opt_out_cleared_whole check ((cleared_at is null) = (cleared_source is null)),
    constraint opt_out_in_order check (cleared_at >= since)
);
create unique index opt_out_one_open on opt_out (account_sid, line, address) where cleared_at is null;
create index opt_out_history on opt_out (account_sid, line, address, cleared_at);
create index opt_out_by_time on opt_out (recorded_at desc, opt_out_id desc);

-- What became of an opt-out in one conversation that has both the member and the number.
create table opt_out_concern (
    conversation_sid text not null,
    opt_out_id uuid not null,
    policy text not null check (policy in ('carry_on', 'ask_supervisor', 'close')),
    state text not null check (state in ('warned', 'held', 'allowed', 'stopped', 'closing', 'closed', 'close_failed', 'over')),
    decided_by text,
    decided_at timestamptz,
    updated_at timestamptz not null,
    primary key (conversation_sid, opt_out_id),
    constraint opt_out_concern_decided check (state not in ('allowed', 'stopped') or decided_by is not null)
);
create index opt_out_concern_by_opt_out on opt_out_concern (opt_out_id);

-- What is to be done about opt-outs of one number, where it is not what its account says.
create table opt_out_policy (
    account_sid text not null,
    line text not null,
    policy text not null check (policy in ('carry_on', 'ask_supervisor', 'close')),
    set_by text not null,
    set_at timestamptz not null,
    primary key (account_sid, line)
);

alter table outbound_message
    -- Who asked for it knew that a member has opted out.
    add column acknowledged_opt_out boolean not null default false,
    -- It waits for a supervisor, outside the queue, since then.
    add column held_since timestamptz,
    add constraint outbound_message_held check (held_since is null or state = 'queued');
create index outbound_message_held on outbound_message (conversation_sid, created_at) where held_since is not null;
