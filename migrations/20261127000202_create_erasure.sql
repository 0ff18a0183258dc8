-- Erasing a person on request, as durable work. Owner: src/erasure.

create table erasure (
    erasure_id uuid primary key,
    subject_kind text not null check (subject_kind in ('number', 'identity')),
    -- Whom to look for. Gone when the work is: then nothing here tells.
    subject text,
    -- Stands for the person wherever a name is needed.
    pseudonym text not null unique,
    upstream text not null check (upstream in ('none', 'messages', 'participants', 'conversations')),
    state text not null check (state in ('running', 'completed', 'incomplete')),
    -- Who asked, and why, in their words; who told us, as the log names it.
    asked_by text not null,
    reason text not null,
    requested_by text not null,
    via text not null check (via in ('api', 'cli')),
    step text not null check (step in ('find', 'twilio', 'conversations', 'webhooks', 'log', 'rest', 'done')),
    -- Where the step goes on.
    place text not null default '',
    conversations text[] not null default '{}',
    -- Left alone because of a legal hold.
    held text[] not null default '{}',
    -- How much of what was erased here, and deleted at Twilio.
    counts jsonb not null default '{}',
    -- What Twilio refused: SIDs and codes.
    failures jsonb not null default '[]',
    created_at timestamptz not null,
    updated_at timestamptz not null,
    finished_at timestamptz,
    -- Tried as often as it is: a person has to look.
    stalled_at timestamptz,
    constraint erasure_forgets check ((state = 'running') = (subject is not null)),
    constraint erasure_finished check ((state = 'running') = (finished_at is null) and (state = 'running') = (step <> 'done'))
);
create index erasure_listing on erasure (created_at, erasure_id);
create unique index erasure_one_running on erasure (subject_kind, subject) where subject is not null;
