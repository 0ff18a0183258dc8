-- Whether groups can be written in. Owner: src/health.

-- What Twilio answered to our messages through a line.
create table line_send (
    conversation_sid text not null,
    line text not null,
    account_sid text not null,
    -- Since the last message that it took.
    refused_in_a_row bigint not null default 0,
    -- Of the last refusal in that row.
    refused_code text,
    refused_at timestamptz,
    refused_since timestamptz,
    outbound_message_id uuid,
    accepted_at timestamptz,
    primary key (conversation_sid, line),
    constraint line_send_refused_whole check (
        (refused_in_a_row > 0) = (refused_at is not null)
        and (refused_at is null) = (refused_since is null)
        and (refused_at is null) = (outbound_message_id is null)
        and (refused_at is null) = (refused_code is null))
);

-- What is wrong with a line, or was.
create table line_finding (
    conversation_sid text not null,
    line_finding_id uuid not null,
    account_sid text not null,
    -- Null: it is about the conversation as such.
    line text,
    code text not null,
    severity text not null check (severity in ('bad', 'warning')),
    since timestamptz not null,
    seen_by text not null check (seen_by in ('sweep', 'answer', 'repair')),
    seen_at timestamptz not null,
    -- SIDs, codes, times and counts. Never anybody's words or numbers.
    evidence jsonb not null,
    resolved_at timestamptz,
    -- The one safe repair. Null: there is none, and a person has to act.
    repair text,
    repair_state text check (repair_state in ('queued', 'done', 'failed')),
    repair_requested_by text,
    repair_requested_at timestamptz,
    repair_finished_at timestamptz,
    repair_outcome text,
    primary key (conversation_sid, line_finding_id),
    constraint line_finding_repair_whole check (
        (repair_state is null) = (repair_requested_at is null)
        and (repair_state is null) = (repair_requested_by is null)),
    constraint line_finding_repair_finished check (
        coalesce(repair_state in ('done', 'failed'), false) = (repair_finished_at is not null)
        and (repair_finished_at is null) = (repair_outcome is null))
);
create unique index line_finding_open on line_finding (conversation_sid, code, line) nulls not distinct
    where resolved_at is null;
create index line_finding_listing on line_finding (since desc, line_finding_id desc) where resolved_at is null;
create index line_finding_of_conversation on line_finding (conversation_sid, since desc);
