-- What was erased of a row stays erased: the row says so, and what a late webhook or a sweep says of it again is dropped
-- as it enters. Owners: of each table its own.
--
-- `erased` names the fields. Of each it keeps {"salt", "digest"} where there was something, so that whoever has the
-- original can show that it was that; {"as"} is what stands in its place. A number has no digest: there are so few of
-- them that a hash would tell it to whoever tries them all.

create function erasure_proof(value bytea) returns jsonb language sql volatile
    return (select jsonb_build_object('salt', salt, 'digest', encode(sha256(uuid_send(salt) || value), 'hex'))
            from (select gen_random_uuid() as salt offset 0) as random);

-- The marks of a row of which these fields are erased now. A field that was erased before keeps its mark.
create function erasure_marks(known jsonb, names text[], said jsonb, pseudonym text) returns jsonb language sql volatile
    return coalesce(known, '{}') || coalesce((
        select jsonb_object_agg(name, case
            when name in ('author', 'address') then jsonb_build_object('as', pseudonym)
            when name = 'identity' and said ->> name is not null
                then erasure_proof(convert_to(said ->> name, 'UTF8')) || jsonb_build_object('as', pseudonym)
            when said ->> name is null then '{}'
            else erasure_proof(convert_to(said ->> name, 'UTF8')) end)
        from unnest(names) as name
        where not coalesce(known, '{}') ? name), '{}');

alter table conversation add column erased jsonb, add column erased_at timestamptz;
alter table participant add column erased jsonb, add column erased_at timestamptz;
alter table message add column erased jsonb, add column erased_at timestamptz;
alter table chat_user add column erased jsonb, add column erased_at timestamptz;
alter table conversation_version add column erased jsonb, add column erased_at timestamptz;
alter table participant_version add column erased jsonb, add column erased_at timestamptz;
alter table message_version add column erased jsonb, add column erased_at timestamptz;
alter table outbound_message add column erased jsonb, add column erased_at timestamptz;
-- Its `erased_at` is there already. {"form": {"salt", "digest"}}: of the bytes.
alter table webhook add column erased jsonb;

-- Rules that look through a table go by the keys of its rows, in rounds; the others go on from where they are.
alter table retention_progress drop constraint retention_progress_class_check;
alter table retention_progress rename column class to place;
alter table retention_progress add column row_key text not null default '';
insert into retention_progress (place) values
    ('messages.body'), ('sends.body'), ('conversations.attributes'), ('participants.attributes'),
    ('messages.attributes'), ('sends.attributes'), ('users.attributes'), ('message_versions'),
    ('participant_versions'), ('conversation_versions'), ('quarantine');

-- Whether a row was erased is told of the past too.
drop function message_as_of(text, timestamptz, timestamptz);
create function message_as_of(in_conversation text, as_of timestamptz, known_at timestamptz)
returns table (
    conversation_sid text, message_sid text, message_index bigint, author text, participant_sid text, body text,
    media text, attributes text, source text, created_at timestamptz, version_at timestamptz, removed_at timestamptz,
    is_current boolean, order_index bigint, order_at timestamptz, erased_at timestamptz
)
language sql stable
as $$
    select m.conversation_sid, m.message_sid, said.message_index, said.author, said.participant_sid, said.body,
           said.media, said.attributes, m.source, m.created_at, coalesce(said.version_at, gone.at),
           case when gone.at <= as_of then gone.at end, coalesce(said.is_current, false), m.message_index,
           coalesce(m.created_at, m.version_at), coalesce(said.erased_at, m.erased_at)
    from message m
    left join lateral (
        select one.*
        from (
            select m.message_index, m.author, m.participant_sid, m.body, m.media, m.attributes, m.version_at,
                   m.erased_at, true as is_current
            where m.learnt_at <= known_at and coalesce(m.stated_at, m.version_at) <= as_of
            union all
            select v.message_index, v.author, v.participant_sid, v.body, v.media, v.attributes, v.version_at, v.erased_at, false
            from message_version v
            where v.conversation_sid = m.conversation_sid and v.message_sid = m.message_sid and v.aspect = 'content'
              and v.learnt_at <= known_at and v.stated_at <= as_of
        ) as one
        order by one.version_at desc, one.is_current desc, one.message_index desc nulls last,
                 one.author collate "C" desc nulls last, one.participant_sid collate "C" desc nulls last,
                 one.body collate "C" desc nulls last, one.media collate "C" desc nulls last,
                 one.attributes collate "C" desc nulls last
        limit 1
    ) as said on true
    cross join lateral (
        select case
            when m.removed_at is null then null
            when coalesce(m.removal_learnt_at, 'epoch') <= known_at then m.removed_at
            else (select min(v.version_at) from message_version v
                  where v.conversation_sid = m.conversation_sid and v.message_sid = m.message_sid
                    and v.aspect = 'removal' and v.learnt_at <= known_at)
        end as at
    ) as gone
    where m.conversation_sid = in_conversation
      -- Nothing is said of a message before it is made: the rest of a long conversation is not looked up.
      and (m.created_at is null or m.created_at <= as_of)
      and (said.version_at is not null or gone.at <= as_of)
$$;

drop function participant_as_of(text, timestamptz, timestamptz);
create function participant_as_of(in_conversation text, as_of timestamptz, known_at timestamptz)
returns table (
    conversation_sid text, participant_sid text, identity text, address text, proxy_address text,
    projected_address text, binding_type text, role_sid text, attributes text, last_read_message_index bigint,
    created_at timestamptz, version_at timestamptz, removed_at timestamptz, erased_at timestamptz
)
language sql stable
as $$
    select p.conversation_sid, p.participant_sid, said.identity, said.address, said.proxy_address,
           said.projected_address, said.binding_type, said.role_sid, said.attributes, said.last_read_message_index,
           p.created_at, coalesce(said.version_at, gone.at), case when gone.at <= as_of then gone.at end, coalesce(said.erased_at, p.erased_at)
    from participant p
    left join lateral (
        select one.*
        from (
            select p.identity, p.address, p.proxy_address, p.projected_address, p.binding_type, p.role_sid,
                   p.attributes, p.last_read_message_index, p.version_at, p.erased_at, true as is_current
            where p.learnt_at <= known_at and coalesce(p.stated_at, p.version_at) <= as_of
            union all
            select v.identity, v.address, v.proxy_address, v.projected_address, v.binding_type, v.role_sid,
                   v.attributes, v.last_read_message_index, v.version_at, v.erased_at, false
            from participant_version v
            where v.conversation_sid = p.conversation_sid and v.participant_sid = p.participant_sid
              and v.aspect = 'content' and v.learnt_at <= known_at and v.stated_at <= as_of
        ) as one
        order by one.version_at desc, one.is_current desc, one.identity collate "C" desc nulls last,
                 one.address collate "C" desc nulls last, one.proxy_address collate "C" desc nulls last,
                 one.projected_address collate "C" desc nulls last, one.binding_type collate "C" desc nulls last,
                 one.role_sid collate "C" desc nulls last, one.attributes collate "C" desc nulls last,
                 one.last_read_message_index desc nulls last
        limit 1
    ) as said on true
    cross join lateral (
        select case
            when p.removed_at is null then null
            when coalesce(p.removal_learnt_at, 'epoch') <= known_at then p.removed_at
            else (select min(v.version_at) from participant_version v
                  where v.conversation_sid = p.conversation_sid and v.participant_sid = p.participant_sid
                    and v.aspect = 'removal' and v.learnt_at <= known_at)
        end as at
    ) as gone
    where p.conversation_sid = in_conversation and (said.version_at is not null or gone.at <= as_of)
$$;

drop function conversation_as_of(text, timestamptz, timestamptz);
create function conversation_as_of(in_conversation text, as_of timestamptz, known_at timestamptz)
returns table (
    conversation_sid text, account_sid text, service_sid text, messaging_service_sid text, friendly_name text,
    unique_name text, attributes text, state text, created_at timestamptz, closed_at timestamptz,
    removed_at timestamptz, autocreated boolean, first_seen_at timestamptz, erased_at timestamptz
)
language sql stable
as $$
    select c.conversation_sid, c.account_sid, c.service_sid, said.messaging_service_sid, said.friendly_name,
           said.unique_name, said.attributes, was.state, c.created_at,
           case when was.state = 'closed' then was.version_at end,
           case when gone.at <= as_of then gone.at end, c.autocreated, c.first_seen_at, coalesce(said.erased_at, c.erased_at)
    from conversation c
    left join lateral (
        select one.*
        from (
            select c.messaging_service_sid, c.friendly_name, c.unique_name, c.attributes, c.version_at,
                   c.erased_at, true as is_current
            where c.learnt_at <= known_at and coalesce(c.stated_at, c.version_at) <= as_of
            union all
            select v.messaging_service_sid, v.friendly_name, v.unique_name, v.attributes, v.version_at, v.erased_at, false
            from conversation_version v
            where v.conversation_sid = c.conversation_sid and v.aspect = 'content'
              and v.learnt_at <= known_at and v.stated_at <= as_of
        ) as one
        order by one.version_at desc, one.is_current desc, one.messaging_service_sid collate "C" desc nulls last,
                 one.friendly_name collate "C" desc nulls last, one.unique_name collate "C" desc nulls last,
                 one.attributes collate "C" desc nulls last
        limit 1
    ) as said on true
    left join lateral (
        select one.state, one.version_at
        from (
            select c.state, coalesce(c.closed_at, c.state_at) as version_at, true as is_current
            where c.state is not null and c.state_learnt_at <= known_at
              and coalesce(c.closed_at, c.state_stated_at, c.state_at) <= as_of
            union all
            select v.state, v.version_at, false
            from conversation_version v
            where v.conversation_sid = c.conversation_sid and v.aspect = 'state'
              and v.learnt_at <= known_at and v.stated_at <= as_of
        ) as one
        order by one.state = 'closed' desc, case when one.state = 'closed' then one.version_at end,
                 one.version_at desc, one.is_current desc,
                 array_position(array['initializing', 'active', 'inactive'], one.state) desc nulls last,
                 one.state collate "C" desc
        limit 1
    ) as was on true
    cross join lateral (
        select case
            when c.removed_at is null then null
            when coalesce(c.removal_learnt_at, 'epoch') <= known_at then c.removed_at
            else (select min(v.version_at) from conversation_version v
                  where v.conversation_sid = c.conversation_sid and v.aspect = 'removal' and v.learnt_at <= known_at)
        end as at
    ) as gone
    where c.conversation_sid = in_conversation
      and (said.version_at is not null or was.state is not null or gone.at <= as_of
           or (c.first_seen_at <= known_at and coalesce(c.created_at, c.first_seen_at) <= as_of))
$$;

-- What an auditor finds empty was erased, or was never there.
create or replace view audit.messages as
select message.conversation_sid, message.message_sid, message.account_sid, message.message_index, message.author,
       message.participant_sid, message.body, message.media, message.attributes, message.source, moment.written_at,
       message.version_at as updated_at, message.removed_at, held.line, held.holder,
       coalesce(held.line = message.author or held.holder = message.author, false) as sent_through,
       coalesce(held.holders > 1 or swap.found, false) as contested, message.erased_at
from message
cross join lateral (
    select coalesce(message.created_at, message.version_at) as written_at
) as moment
cross join lateral (
    select moment.written_at + case when date_trunc('second', moment.written_at, 'UTC') = moment.written_at
               then interval '1 second' else interval '1 microsecond' end as until
) as written
left join lateral (
    select tenure.line, (array_agg(tenure.holder order by lower(tenure.during)))[1] as holder,
           count(distinct coalesce(tenure.holder, '')) as holders
    from tenure
    where tenure.conversation_sid = message.conversation_sid
      and tenure.superseded_at is null
      and tenure.cause <> 'removed'
      and tenure.during && tstzrange(moment.written_at, written.until)
    group by tenure.line
) as held on true
left join lateral (
    select true as found
    from transfer
    where transfer.conversation_sid = message.conversation_sid
      and transfer.line = held.line
      and transfer.contested_from < written.until
      and (transfer.contested_to is null or transfer.contested_to >= moment.written_at)
    limit 1
) as swap on true;
