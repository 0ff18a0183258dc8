-- What the next holder says, who did something about a plan last and when, and who turned it round. Owner: src/handover.
alter table handover_plan
    -- What each new holder says to the group once the line is theirs.
    add column introduction text,
    -- Who did something about it last, and when: `hookswitch`, where it came to its next state by itself.
    add column changed_by text,
    add column changed_at timestamptz,
    -- Who turned it round; none where the day did.
    add column turned_by text;
update handover_plan set changed_by = coalesce(started_by, requested_by), changed_at = updated_at;
alter table handover_plan
    alter column changed_by set not null,
    alter column changed_at set not null;
