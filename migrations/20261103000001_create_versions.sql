-- What the mirror said before, and what it was told late: so that it answers for any past moment. Owner: src/mirror.
--
-- Each statement of Twilio's has two times: when it became true there, and when we learnt it. The newest one is the
-- row itself; all others are in the tables below. A new message therefore costs no row more than it did.
--
-- learnt_at is when we learnt what the row says; null where nothing but a removal is known. What was there before this
-- migration counts as known since ever. stated_at is since when the row's content was stated, where its version has
-- moved on without it (a doubt that a read settled).

alter table conversation
    add column learnt_at timestamptz default 'epoch',
    add column stated_at timestamptz,
    add column state_learnt_at timestamptz default 'epoch',
    add column state_stated_at timestamptz,
    add column removal_learnt_at timestamptz;
alter table participant
    add column learnt_at timestamptz default 'epoch',
    add column stated_at timestamptz,
    add column removal_learnt_at timestamptz;
alter table message
    add column learnt_at timestamptz default 'epoch',
    add column stated_at timestamptz,
    add column removal_learnt_at timestamptz;
alter table delivery_receipt
    add column learnt_at timestamptz default 'epoch';

-- version_at orders the statements about one resource; stated_at is when one began to count. A removal is a statement
-- of its own, since the earliest one known counts. The digest is of the content: the same statement is kept once.
create table conversation_version (
    conversation_sid text not null,
    aspect text not null check (aspect in ('content', 'state', 'removal')),
    version_at timestamptz not null,
    stated_at timestamptz not null,
    learnt_at timestamptz not null,
    messaging_service_sid text,
    friendly_name text,
    unique_name text,
    attributes text,
    state text,
    digest bytea not null,
    primary key (conversation_sid, aspect, version_at, digest),
    constraint conversation_version_state check ((aspect = 'state') = (state is not null))
);

create table participant_version (
    conversation_sid text not null,
    participant_sid text not null,
    aspect text not null check (aspect in ('content', 'removal')),
    version_at timestamptz not null,
    stated_at timestamptz not null,
    learnt_at timestamptz not null,
    identity text,
    address text,
    proxy_address text,
    projected_address text,
    binding_type text,
    role_sid text,
    attributes text,
    last_read_message_index bigint,
    digest bytea not null,
    primary key (conversation_sid, participant_sid, aspect, version_at, digest)
);

create table message_version (
    conversation_sid text not null,
    message_sid text not null,
    aspect text not null check (aspect in ('content', 'removal')),
    version_at timestamptz not null,
    stated_at timestamptz not null,
    learnt_at timestamptz not null,
    message_index bigint,
    author text,
    participant_sid text,
    body text,
    media text,
    attributes text,
    digest bytea not null,
    primary key (conversation_sid, message_sid, aspect, version_at, digest)
);

-- What a receipt said before: its status and its error; the rest of it does not change.
create table receipt_version (
    conversation_sid text not null,
    message_sid text not null,
    delivery_receipt_sid text not null,
    version_at timestamptz not null,
    learnt_at timestamptz not null,
    status text not null,
    error_code text,
    constraint receipt_version_once
        unique nulls not distinct (conversation_sid, message_sid, delivery_receipt_sid, version_at, status, error_code)
);

-- What was believed of a line before; what is believed now has an index already.
create index tenure_of_line_superseded on tenure (line, lower(during)) where superseded_at is not null;

-- The order of the functions below is that of src/mirror/fold: newest first, and of one instant what is greater.

-- The messages of a conversation as they were at as_of, as far as was known at known_at. A removed one is there, with
-- removed_at; `is_current` says that the row still says so.
create function message_as_of(in_conversation text, as_of timestamptz, known_at timestamptz)
returns table (
    conversation_sid text, message_sid text, message_index bigint, author text, participant_sid text, body text,
    media text, attributes text, source text, created_at timestamptz, version_at timestamptz, removed_at timestamptz,
    is_current boolean, order_index bigint, order_at timestamptz
)
language sql stable
as $$
    select m.conversation_sid, m.message_sid, said.message_index, said.author, said.participant_sid, said.body,
           said.media, said.attributes, m.source, m.created_at, coalesce(said.version_at, gone.at),
           case when gone.at <= as_of then gone.at end, coalesce(said.is_current, false), m.message_index,
           coalesce(m.created_at, m.version_at)
    from message m
    left join lateral (
        select one.*
        from (
            select m.message_index, m.author, m.participant_sid, m.body, m.media, m.attributes, m.version_at,
                   true as is_current
            where m.learnt_at <= known_at and coalesce(m.stated_at, m.version_at) <= as_of
            union all
            select v.message_index, v.author, v.participant_sid, v.body, v.media, v.attributes, v.version_at, false
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

create function participant_as_of(in_conversation text, as_of timestamptz, known_at timestamptz)
returns table (
    conversation_sid text, participant_sid text, identity text, address text, proxy_address text,
    projected_address text, binding_type text, role_sid text, attributes text, last_read_message_index bigint,
    created_at timestamptz, version_at timestamptz, removed_at timestamptz
)
language sql stable
as $$
    select p.conversation_sid, p.participant_sid, said.identity, said.address, said.proxy_address,
           said.projected_address, said.binding_type, said.role_sid, said.attributes, said.last_read_message_index,
           p.created_at, coalesce(said.version_at, gone.at), case when gone.at <= as_of then gone.at end
    from participant p
    left join lateral (
        select one.*
        from (
            select p.identity, p.address, p.proxy_address, p.projected_address, p.binding_type, p.role_sid,
                   p.attributes, p.last_read_message_index, p.version_at, true as is_current
            where p.learnt_at <= known_at and coalesce(p.stated_at, p.version_at) <= as_of
            union all
            select v.identity, v.address, v.proxy_address, v.projected_address, v.binding_type, v.role_sid,
                   v.attributes, v.last_read_message_index, v.version_at, false
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

-- Closed is final, and the earliest time of it counts; else the newest state does.
create function conversation_as_of(in_conversation text, as_of timestamptz, known_at timestamptz)
returns table (
    conversation_sid text, account_sid text, service_sid text, messaging_service_sid text, friendly_name text,
    unique_name text, attributes text, state text, created_at timestamptz, closed_at timestamptz,
    removed_at timestamptz, autocreated boolean, first_seen_at timestamptz
)
language sql stable
as $$
    select c.conversation_sid, c.account_sid, c.service_sid, said.messaging_service_sid, said.friendly_name,
           said.unique_name, said.attributes, was.state, c.created_at,
           case when was.state = 'closed' then was.version_at end,
           case when gone.at <= as_of then gone.at end, c.autocreated, c.first_seen_at
    from conversation c
    left join lateral (
        select one.*
        from (
            select c.messaging_service_sid, c.friendly_name, c.unique_name, c.attributes, c.version_at,
                   true as is_current
            where c.learnt_at <= known_at and coalesce(c.stated_at, c.version_at) <= as_of
            union all
            select v.messaging_service_sid, v.friendly_name, v.unique_name, v.attributes, v.version_at, false
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

-- A receipt only moves forward: sent, delivered, read; undelivered and failed are final.
create function receipt_as_of(in_conversation text, as_of timestamptz, known_at timestamptz)
returns table (
    conversation_sid text, message_sid text, delivery_receipt_sid text, participant_sid text,
    channel_message_sid text, status text, error_code text, version_at timestamptz
)
language sql stable
as $$
    select d.conversation_sid, d.message_sid, d.delivery_receipt_sid, d.participant_sid, d.channel_message_sid,
           said.status, said.error_code, said.version_at
    from delivery_receipt d
    cross join lateral (
        select one.*
        from (
            select d.status, d.error_code, d.version_at
            where d.learnt_at <= known_at and d.version_at <= as_of
            union all
            select v.status, v.error_code, v.version_at
            from receipt_version v
            where v.conversation_sid = d.conversation_sid and v.message_sid = d.message_sid
              and v.delivery_receipt_sid = d.delivery_receipt_sid
              and v.learnt_at <= known_at and v.version_at <= as_of
        ) as one
        order by coalesce(array_position(array['sent', 'delivered', 'read', 'undelivered', 'failed'],
                                         replace(one.status, 'failed', 'undelivered')), 0) desc,
                 one.version_at desc, one.status collate "C" desc, one.error_code collate "C" desc nulls last
        limit 1
    ) as said
    where d.conversation_sid = in_conversation
$$;
