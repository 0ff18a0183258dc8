-- Who held which line when. Owner: src/ledger.
create extension if not exists btree_gist;

-- Every statement of a source about the seat of one participant: which line, which identity, or gone. Kept even when
-- it comes late, since the ledger is derived from all of them, in any order.
create table holding (
    conversation_sid text not null,
    participant_sid text not null,
    at timestamptz not null,
    exact boolean not null,
    line text,
    identity text,
    removed boolean not null,
    via text not null,
    recorded_at timestamptz not null,
    constraint holding_once unique nulls not distinct (conversation_sid, participant_sid, at, exact, line, identity, removed)
);

-- The ledger has two times: `during` is when it was so, recorded_at to superseded_at when we believed it.
create table tenure (
    tenure_id uuid not null,
    conversation_sid text not null,
    line text not null,
    holder text,
    during tstzrange not null,
    cause text not null check (cause in ('created', 'transfer', 'upstream', 'removed')),
    transfer_id uuid,
    via text not null,
    recorded_at timestamptz not null,
    superseded_at timestamptz,
    primary key (conversation_sid, tenure_id),
    constraint tenure_not_empty check (not isempty(during) and lower(during) is not null),
    constraint tenure_one_holder_per_line
        exclude using gist (conversation_sid with =, line with =, during with &&) where (superseded_at is null)
);
create index tenure_of_conversation on tenure (conversation_sid, line) where superseded_at is null;
create index tenure_of_line on tenure (line, lower(during)) where superseded_at is null;
create index tenure_of_holder on tenure (holder, conversation_sid) where superseded_at is null and upper_inf(during);

-- Who may change the holder of a line right now. The fence only grows: a worker that overslept finds a higher one.
create table line_lease (
    conversation_sid text not null,
    line text not null,
    fence bigint not null,
    transfer_id uuid,
    to_holder text,
    expires_at timestamptz,
    primary key (conversation_sid, line),
    constraint line_lease_whole check ((transfer_id is null) = (expires_at is null))
);
