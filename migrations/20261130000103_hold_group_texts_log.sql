-- What was told of a group text before it had a conversation is about that conversation, where retention and legal hold ask.
create index event_before_conversation on event (subject) where type like 'group_text.%' and conversation_sid is null;

create function conversation_of_group_text(event_type text, event_subject text) returns text
language sql stable
as $$
    select case when $1 like 'group_text.%' then
        (select conversation_sid from group_text where group_text_id = $2::uuid) end
$$;
