-- Escalation policies, what came of them, and which lines have to be looked at. Owner: src/escalation.

create table escalation_policy (
    policy_id text primary key,
    version bigint not null check (version > 0),
    name text not null,
    enabled boolean not null,
    -- What happened before is none of its business; from when it was enabled on, over however many versions.
    enabled_since timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint escalation_policy_enabled check (enabled = (enabled_since is not null))
);

-- Each version as it was written: what began under one goes on under it.
create table escalation_policy_version (
    policy_id text not null,
    version bigint not null,
    document jsonb not null,
    created_by text not null,
    created_at timestamptz not null,
    primary key (policy_id, version)
);

create table escalation (
    conversation_sid text not null,
    escalation_id uuid not null,
    account_sid text not null,
    line text not null,
    policy_id text not null,
    policy_version bigint not null,
    rule text not null,
    cause text not null check (cause in ('no_answer', 'unavailable', 'words', 'delivery_failure', 'asked')),
    -- What it is about, the same each time that it is derived: nothing begins twice.
    cause_key text not null,
    -- When that was; it began later, when the rule's time was up.
    cause_at timestamptz not null,
    holder text,
    asked_by text,
    reason text,
    state text not null check (state in ('open', 'stopped', 'ended', 'needs_person')),
    why text,
    stopped_by text,
    next_at timestamptz,
    started_at timestamptz not null,
    updated_at timestamptz not null,
    finished_at timestamptz,
    primary key (conversation_sid, escalation_id),
    constraint escalation_once unique (conversation_sid, line, policy_id, rule, cause_key),
    constraint escalation_finished check ((state = 'open') = (finished_at is null)),
    constraint escalation_why check (state = 'open' or why is not null)
);
create unique index escalation_one_open on escalation (conversation_sid, line, policy_id, rule) where finished_at is null;
create index escalation_by_id on escalation (escalation_id);
create index escalation_listing on escalation (started_at, escalation_id);
create index escalation_open_of_policy on escalation (policy_id) where finished_at is null;

-- What was done, in order.
create table escalation_step (
    conversation_sid text not null,
    escalation_id uuid not null,
    number integer not null check (number > 0),
    -- Which step of the rule, from 1; the last one may be repeated.
    step integer not null check (step > 0),
    how text not null check (how in ('nudge', 'offer', 'force')),
    whom text not null,
    to_identity text,
    taken_at timestamptz not null,
    -- asked: the transfer is about to be started; started: it was, see transfer_id.
    outcome text not null check (outcome in ('told', 'skipped', 'asked', 'started', 'refused', 'dropped')),
    code text,
    transfer_id uuid,
    settled_at timestamptz,
    primary key (conversation_sid, escalation_id, number),
    constraint escalation_step_started check ((outcome = 'started') = (transfer_id is not null))
);

-- Lines that have to be looked at, and when: whatever may bring a deadline nearer puts the line here, and each look derives
-- anew what is due. A row goes when nothing is to come. Who looks at a line has a lease; whatever happens to the line takes
-- it away, so that a look that began before writes nothing.
create table escalation_watch (
    conversation_sid text not null,
    line text not null,
    look_at timestamptz not null,
    lease_token uuid,
    lease_expires_at timestamptz,
    primary key (conversation_sid, line)
);
create index escalation_watch_due on escalation_watch (look_at);

-- Who looks after an agent's lines when they do not answer. Owner: src/people.
alter table agent
    add column backup text constraint agent_backup references agent deferrable initially deferred,
    add constraint agent_not_own_backup check (backup <> identity);
create index agent_by_backup on agent (backup) where backup is not null;

-- Who goes away, leaves, comes back or changes the team changes what is due on the lines that they hold.
create function escalation_marks_agent() returns trigger language plpgsql as $$
begin
    if exists (select from escalation_policy where enabled) then
        insert into escalation_watch (conversation_sid, line, look_at)
        select conversation_sid, line, 'epoch' from tenure
        where holder = new.identity and superseded_at is null and upper_inf(during)
        order by conversation_sid, line
        on conflict (conversation_sid, line) do update
        set look_at = 'epoch', lease_token = null, lease_expires_at = null;
    end if;
    return null;
end $$;
create trigger escalation_marks after update of availability, availability_until, left_at, team_id on agent
    for each row execute function escalation_marks_agent();

-- Other hours move every deadline that is counted by them.
create function escalation_marks_team() returns trigger language plpgsql as $$
begin
    update escalation_watch set look_at = 'epoch', lease_token = null, lease_expires_at = null
    where (conversation_sid, line) in (
        select conversation_sid, line from escalation_watch order by conversation_sid, line for update);
    return null;
end $$;
create trigger escalation_marks after update on team
    for each row when (old.hours <> new.hours or old.holidays <> new.holidays or old.time_zone <> new.time_zone)
    execute function escalation_marks_team();

-- An offer that came to its end is followed by what the policy says then.
create function escalation_marks_transfer() returns trigger language plpgsql as $$
begin
    update escalation_watch set look_at = 'epoch', lease_token = null, lease_expires_at = null
    where conversation_sid = new.conversation_sid and line = new.line;
    return null;
end $$;
create trigger escalation_marks after update of state on transfer
    for each row when (old.state <> new.state and new.requested_by like 'escalation:%')
    execute function escalation_marks_transfer();

-- Who was away when, for a look back.
create index event_of_availability on event (occurred_at) where type = 'agent.availability_changed';
