-- Our people: agents, the teams they are in, and who is on call. Owner: src/people.

create table team (
    team_id text primary key,
    name text not null,
    time_zone text not null,
    -- JSON: the hours of each day of the week, and the dates that have other ones. Read and written whole.
    hours jsonb not null,
    holidays jsonb not null,
    -- Whose turn it is changes every day or week from a time of the team's clocks; null: the order stands.
    rotation_every text check (rotation_every in ('day', 'week')),
    rotation_start text,
    version bigint not null check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint team_rotation_whole check ((rotation_every is null) = (rotation_start is null))
);

-- The key is Twilio's identity, whatever the account, as the ledger and transfers have it.
create table agent (
    identity text primary key,
    name text not null,
    -- Checked when the transaction ends, so that an import may bring them in any order.
    team_id text constraint agent_team references team deferrable initially deferred,
    supervisor text constraint agent_supervisor references agent deferrable initially deferred,
    skills text[] not null,
    -- Lines held at once; null: as many as come.
    capacity integer check (capacity >= 0),
    left_at timestamptz,
    availability text not null check (availability in ('available', 'away')),
    availability_reason text,
    -- After this they are available again; nothing has to happen for it.
    availability_until timestamptz,
    availability_since timestamptz not null,
    availability_set_by text,
    version bigint not null check (version > 0),
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint agent_not_own_supervisor check (supervisor <> identity),
    constraint agent_away_has_end check (availability = 'away' or (availability_reason is null and availability_until is null))
);
create index agent_by_team on agent (team_id, identity) where team_id is not null;
create index agent_by_supervisor on agent (supervisor, identity) where supervisor is not null;

create table team_on_call (
    team_id text not null references team on delete cascade,
    place integer not null check (place >= 0),
    identity text not null constraint team_on_call_agent references agent deferrable initially deferred,
    primary key (team_id, place),
    constraint team_on_call_once unique (team_id, identity)
);
create index team_on_call_by_identity on team_on_call (identity);
