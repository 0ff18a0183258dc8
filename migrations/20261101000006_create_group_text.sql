-- Group texts that we were asked for, or that a customer started. Owner: src/group_text.

create table group_text (
    group_text_id uuid primary key,
    account_sid text not null,
    origin text not null check (origin in ('requested', 'autocreated')),
    conversation_sid text,
    -- Twilio already had an open conversation of these numbers, and we took it.
    adopted boolean not null default false,
    state text not null check (state in ('requested', 'initializing', 'active', 'failed', 'closed')),
    failure_code text,
    failure_detail text,
    friendly_name text,
    attributes text,
    -- Sorted numbers of all members; Twilio allows one open conversation per roster.
    roster text,
    -- What was asked for; who is in the group is the mirror's business.
    members jsonb,
    -- Twilio may fail while it adds the members; then it is asked again, under another unique name.
    create_attempt smallint not null default 1,
    requested_by text,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    constraint group_text_asked_for check (origin = 'autocreated' or (roster is not null and members is not null)),
    constraint group_text_failed_with_code check ((state = 'failed') = (failure_code is not null))
);
create unique index group_text_of_conversation on group_text (conversation_sid) where conversation_sid is not null;
create unique index group_text_open_roster on group_text (account_sid, roster)
    where state in ('requested', 'initializing') and origin = 'requested';
create index group_text_listing on group_text (created_at, group_text_id);
