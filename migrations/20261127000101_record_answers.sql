-- What entered the mirror otherwise than by a webhook: answers of our own calls, and what sweeps read. With the webhooks
-- it is all that the mirror is made of, so that it can be made anew. Owner: src/projection.

create table answer (
    -- Its place among all statements, webhooks included.
    number bigint primary key default next_statement_number(),
    account_sid text not null,
    -- Null: of a user, who belongs to no conversation.
    conversation_sid text,
    via text not null,
    learnt_at timestamptz not null,
    -- A list of statements in the mirror's words, each with whether it settled a doubt. They hold names, numbers and
    -- messages. Empty once erased.
    statements jsonb not null,
    erased_at timestamptz
);
create index answer_of_conversation on answer (conversation_sid, number);

-- Conversations that were mirrored before answers were recorded: of some of what is known of them, no source is kept.
create table unrecorded_conversation (
    conversation_sid text primary key
);
insert into unrecorded_conversation (conversation_sid) select conversation_sid from conversation;
