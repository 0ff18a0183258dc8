-- Our pool of numbers, and what becomes of lines that nobody holds. Owners: src/numbers, src/assignment.

create table number (
    number text primary key,
    account_sid text not null,
    label text,
    kind text not null check (kind in ('long_code', 'toll_free', 'short_code')),
    -- What the operator states: group texts are MMS.
    mms_capable boolean not null,
    messaging_service_sid text,
    team_id text,
    -- Who gets a line of this number that nobody holds; null: nobody is chosen.
    rule text check (rule in ('round_robin', 'least_loaded', 'on_call', 'person', 'queue')),
    person text,
    -- Chosen for new group texts.
    enabled boolean not null,
    version bigint not null check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint number_rule_of_person check (coalesce(rule = 'person', false) = (person is not null)),
    constraint number_rule_of_team check (rule is null or rule = 'person' or team_id is not null)
);
-- Asked for with every batch of webhooks: whether any has one.
create index number_with_rule on number (number) where rule is not null;
create index number_of_team on number (team_id, number) where team_id is not null;

-- A line that nobody holds and somebody is to have: it waits, or is given by a transfer. The row goes when somebody has it.
create table line_assignment (
    conversation_sid text not null,
    line text not null,
    account_sid text not null,
    team_id text,
    state text not null check (state in ('waiting', 'given')),
    -- Why it waits, or how it was given, for programs.
    reason text not null,
    -- Since when somebody is to have it.
    since timestamptz not null,
    -- Who held this number with these people last.
    last_holder text,
    -- JSON: who was passed over, and why.
    passed jsonb not null,
    transfer_id uuid,
    to_holder text,
    -- How often it was given without success; after a few it is left to people.
    attempts integer not null default 0,
    updated_at timestamptz not null,
    primary key (conversation_sid, line),
    constraint line_assignment_given check ((state = 'given') = (transfer_id is not null and to_holder is not null))
);
create index line_assignment_waiting on line_assignment (since, conversation_sid, line) where state = 'waiting';

-- Whose turn it was last. The row's lock keeps decisions about one team apart.
create table assignment_turn (
    team_id text primary key,
    last_identity text
);

-- Who was in a group with a handset before, and how many groups a number has now.
create index participant_by_address on participant (address, conversation_sid) where address is not null;
create index tenure_open_of_line on tenure (line)
    where superseded_at is null and upper_inf(during) and cause <> 'removed';
