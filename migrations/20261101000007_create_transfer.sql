-- Giving a line to another holder, as durable work. Owner: src/transfer.

create table transfer (
    transfer_id uuid not null,
    conversation_sid text not null,
    account_sid text not null,
    line text not null,
    kind text not null check (kind in ('assign', 'cold', 'warm', 'escalation')),
    from_holder text,
    to_holder text not null,
    state text not null check (state in ('offered', 'swapping', 'completed', 'declined', 'cancelled', 'expired', 'failed', 'needs_attention')),
    requested_by text not null,
    decided_by text,
    reason text,
    note text,
    -- Set when the transfer ends without success: a stable code and a sentence of facts.
    outcome_code text,
    outcome_detail text,
    method text check (method in ('update', 'add_remove', 'none')),
    offer_expires_at timestamptz,
    -- The work on the swap ends here at the latest.
    swap_deadline_at timestamptz,
    swap_started_at timestamptz,
    -- When the identity change was asked of Twilio, and when it was read back: messages in between are contested.
    contested_from timestamptz,
    contested_to timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    finished_at timestamptz,
    primary key (conversation_sid, transfer_id),
    constraint transfer_finished check ((state in ('offered', 'swapping')) = (finished_at is null)),
    constraint transfer_offer_expires check (state <> 'offered' or offer_expires_at is not null),
    constraint transfer_swap_bounded check (state <> 'swapping' or swap_deadline_at is not null),
    constraint transfer_unhappy_has_code check (state not in ('failed', 'needs_attention') or outcome_code is not null)
);
create unique index transfer_one_open_per_line on transfer (conversation_sid, line) where finished_at is null;
create index transfer_by_id on transfer (transfer_id);
create index transfer_listing on transfer (created_at, transfer_id);
create index transfer_open on transfer (to_holder, created_at) where finished_at is null;

-- What was tried, in order. A step is written before the call and again after it.
create table transfer_step (
    conversation_sid text not null,
    transfer_id uuid not null,
    step_number integer not null,
    action text not null,
    started_at timestamptz not null,
    finished_at timestamptz,
    outcome text,
    detail text,
    primary key (conversation_sid, transfer_id, step_number)
);

-- Twilio's pages contradict each other on replacing an identity: what each account really does is learnt.
create table transfer_method (
    account_sid text primary key,
    update_refused boolean not null,
    learnt_at timestamptz not null
);
