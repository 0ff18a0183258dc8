-- Messages that the CRM asked us to send. Owner: src/outbox.

create table outbound_message (
    conversation_sid text not null,
    outbound_message_id uuid not null,
    account_sid text not null,
    line text not null,
    -- Only this person may be the author, when the request said so; else whoever holds the line when it is sent.
    as_holder text,
    author text,
    body text not null,
    attributes text,
    state text not null check (state in ('queued', 'sending', 'sent', 'failed', 'needs_attention')),
    outcome_code text,
    outcome_detail text,
    message_sid text,
    requested_by text not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (conversation_sid, outbound_message_id),
    constraint outbound_message_sent check ((state = 'sent') = (message_sid is not null))
);
create index outbound_message_by_id on outbound_message (outbound_message_id);
