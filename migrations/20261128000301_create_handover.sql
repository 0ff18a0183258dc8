-- Handing over all lines of a person by a plan, and back. Owner: src/handover.

create table handover_plan (
    handover_id uuid primary key,
    leaver text not null,
    state text not null check (state in ('planning', 'draft', 'running', 'paused', 'completed', 'cancelled', 'returned')),
    direction text not null default 'out' check (direction in ('out', 'back')),
    -- What the work is at: asking Twilio which lines there are, waiting for reads of those in doubt, starting transfers.
    phase text not null default 'listing' check (phase in ('listing', 'reading', 'giving')),
    -- What becomes of a line that nobody of the rules can take.
    otherwise text not null check (otherwise in ('stay', 'release')),
    lines_per_minute integer not null check (lines_per_minute between 1 and 60000),
    -- No line begins before this.
    next_due_at timestamptz,
    -- A timer: what was handed over and is still with whom it was given to goes back.
    return_at timestamptz,
    back_because text check (back_because in ('roll_back', 'return')),
    -- What the leaver is from the beginning of the run on, and when the run made them so.
    leaver_becomes text check (leaver_becomes in ('left', 'away')),
    leaver_changed_at timestamptz,
    reason text,
    note text,
    requested_by text not null,
    -- Who started the run; the transfers are theirs.
    started_by text,
    -- Why it does not get on, by the class of Twilio's last error.
    waiting_error text,
    waiting_since timestamptz,
    listed_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    started_at timestamptz,
    finished_at timestamptz,
    constraint handover_plan_waiting_whole check ((waiting_error is null) = (waiting_since is null)),
    constraint handover_plan_back check ((direction = 'back') = (back_because is not null)),
    constraint handover_plan_finished check ((state in ('completed', 'cancelled', 'returned')) = (finished_at is not null))
);
create index handover_plan_listing on handover_plan (created_at, handover_id);
create unique index handover_plan_one_at_work on handover_plan (leaver) where state in ('running', 'paused');

-- To whom lines go: the first rule that yields somebody decides.
create table handover_rule (
    handover_id uuid not null references handover_plan on delete cascade,
    place integer not null check (place >= 0),
    rule text not null check (rule in ('people', 'team', 'last_holder', 'supervisor')),
    people text[] not null default '{}',
    team_id text,
    spread text check (spread in ('least_loaded', 'round_robin')),
    primary key (handover_id, place),
    constraint handover_rule_people check ((rule = 'people') = (cardinality(people) > 0)),
    constraint handover_rule_team check ((rule = 'team') = (team_id is not null) and (rule = 'team') = (spread is not null))
);

create table handover_line (
    handover_id uuid not null references handover_plan on delete cascade,
    conversation_sid text not null,
    line text not null,
    account_sid text not null,
    -- What the ledger and Twilio said of it when it was found.
    finding text not null check (finding in ('agrees', 'only_here', 'only_at_twilio', 'closed')),
    -- When the conversation was asked to be read, because of a doubt, and when that had been done.
    asked_at timestamptz,
    settled_at timestamptz,
    -- Found when the run looked again at its end.
    found_later boolean not null default false,
    state text not null
        check (state in ('waiting', 'transferring', 'handed_over', 'stays', 'skipped', 'failed', 'cancelled')),
    action text check (action in ('give', 'release', 'stay')),
    to_holder text,
    -- By which rule.
    why text,
    -- JSON: who was passed over, and why.
    passed jsonb not null default '[]',
    by_hand boolean not null default false,
    outcome text,
    transfer_id uuid,
    -- Its place in the rate: when it was due to begin. And before when it cannot, where something stands against it.
    due_at timestamptz,
    not_before timestamptz,
    finished_at timestamptz,
    back_state text check (back_state in ('transferring', 'returned', 'kept', 'failed')),
    back_outcome text,
    back_transfer_id uuid,
    back_due_at timestamptz,
    primary key (handover_id, conversation_sid, line),
    constraint handover_line_given check ((action = 'give') = (to_holder is not null) or action is null),
    constraint handover_line_transfer check (state not in ('transferring', 'handed_over') or transfer_id is not null),
    constraint handover_line_back check (back_state is null or state = 'handed_over')
);
create index handover_line_waiting on handover_line (handover_id, conversation_sid, line) where state = 'waiting';
create index handover_line_transferring on handover_line (handover_id)
    where state = 'transferring' or back_state = 'transferring';
create index handover_line_to_go_back on handover_line (handover_id, conversation_sid, line)
    where state = 'handed_over' and back_state is null;
create index handover_line_doubts on handover_line (handover_id) where asked_at is not null and settled_at is null;
create index handover_line_of_conversation on handover_line (conversation_sid);
