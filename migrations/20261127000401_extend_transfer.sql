-- Transfers as a protocol: offers that supersede each other and go through a list, force, release and handback.
-- Owner: src/transfer.

-- A release gives the line to nobody.
alter table transfer alter column to_holder drop not null;
alter table transfer
    drop constraint transfer_kind_check,
    add constraint transfer_kind_check
        check (kind in ('assign', 'cold', 'warm', 'escalation', 'force', 'release', 'handback')),
    drop constraint transfer_state_check,
    add constraint transfer_state_check
        check (state in ('offered', 'swapping', 'completed', 'declined', 'cancelled', 'expired', 'exhausted', 'superseded',
                         'failed', 'needs_attention')),
    add constraint transfer_to_somebody check (to_holder is not null or kind = 'release');

alter table transfer
    -- The open transfer of the same line that this one ended, and the other way round.
    add column supersedes uuid,
    add column superseded_by uuid,
    -- For whom decided_by, or requested_by of a release or handback, stood in: a supervisor for somebody else.
    add column decided_as text,
    -- A message of the new holder's, and how it was put into the outbox once the line was theirs.
    add column introduction text,
    add column introduction_send_id uuid,
    -- Who else may be on the line, since a swap that was under way was taken over; null stands for nobody.
    add column displaced text[] not null default '{}',
    -- What keeps the swap from going on, and since when.
    add column waiting_for text,
    add column waiting_error text,
    add column waiting_since timestamptz,
    add constraint transfer_waiting_whole check ((waiting_for is null) = (waiting_since is null)),
    add constraint transfer_superseded_by check (state <> 'superseded' or superseded_by is not null);

-- How often a line changed hands lately.
create index transfer_hops on transfer (conversation_sid, line, finished_at) where state = 'completed';

-- Who is offered a line, in which order, and what became of it.
create table transfer_candidate (
    conversation_sid text not null,
    transfer_id uuid not null,
    place integer not null,
    identity text not null,
    offer_seconds bigint not null check (offer_seconds > 0),
    state text not null check (state in ('waiting', 'offered', 'accepted', 'declined', 'expired', 'skipped', 'withdrawn')),
    -- Why they were passed over.
    reason text,
    offered_at timestamptz,
    answered_at timestamptz,
    answered_by text,
    -- When they first read the thread that they were offered.
    briefed_at timestamptz,
    primary key (conversation_sid, transfer_id, place),
    constraint transfer_candidate_offered check (state in ('waiting', 'skipped', 'withdrawn') or offered_at is not null)
);
create unique index transfer_candidate_one_offered
    on transfer_candidate (conversation_sid, transfer_id) where state = 'offered';
