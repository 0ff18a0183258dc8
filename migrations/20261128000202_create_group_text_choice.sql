-- How a new group text comes to its number, and what happens where there is a group of the same numbers. Owner:
-- src/group_text. Not of every group text: of those that ask for it, and those that found such a group.

create table group_text_choice (
    group_text_id uuid primary key,
    if_exists text check (if_exists in ('adopt', 'refuse', 'other_number')),
    -- Of whose numbers another may be chosen.
    team_id text,
    -- The one that is a line of it, and that another may be chosen for.
    number text,
    -- Those that Twilio was asked for in vain.
    tried text[] not null default '{}',
    existing_conversation_sid text
);
