-- What auditors read, by SQL: a public contract, described column by column in docs/AUDIT.md. Owner: src/audit.
--
-- The views belong to hookswitch_audit_views, which reads the tables below them and writes nothing. Auditors are given
-- hookswitch_audit, which reads the views and nothing else.

create schema audit;

create view audit.conversations as
select conversation_sid, account_sid, service_sid, friendly_name, unique_name, state, autocreated,
       created_at, closed_at, removed_at, first_seen_at, last_message_at, verified_at,
       unverified_since is not null as in_doubt
from conversation;

create view audit.tenures as
select tenure_id, conversation_sid, line, holder, lower(during) as held_from, upper(during) as held_to,
       cause, transfer_id, via, recorded_at
from tenure
where superseded_at is null;

create view audit.transfers as
select transfer_id, conversation_sid, account_sid, line, kind, from_holder, to_holder, state, requested_by, decided_by,
       reason, note, outcome_code, outcome_detail, method, contested_from, contested_to, created_at, updated_at, finished_at
from transfer;

-- A time to the second stands for its whole second, since REST answers are cut to it.
create view audit.messages as
select message.conversation_sid, message.message_sid, message.account_sid, message.message_index, message.author,
       message.participant_sid, message.body, message.media, message.attributes, message.source, moment.written_at,
       message.version_at as updated_at, message.removed_at, held.line, held.holder,
       coalesce(held.line = message.author or held.holder = message.author, false) as sent_through,
       coalesce(held.holders > 1 or swap.found, false) as contested
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

create view audit.deliveries as
select receipt.conversation_sid, receipt.message_sid, receipt.delivery_receipt_sid, receipt.account_sid,
       receipt.participant_sid, participant.address, receipt.status, receipt.error_code,
       receipt.status in ('failed', 'undelivered') as is_failed, receipt.created_at, receipt.version_at as updated_at
from delivery_receipt as receipt
left join participant
    on participant.conversation_sid = receipt.conversation_sid and participant.participant_sid = receipt.participant_sid;

-- Who was in a conversation at a moment. The identity behind a line is the ledger's.
create function audit.roster_at(sid text, at timestamptz)
returns table (participant_sid text, kind text, address text, line text, identity text, joined_at timestamptz, left_at timestamptz)
language sql stable security definer
set search_path = pg_catalog, public, pg_temp
begin atomic
    select member.participant_sid,
           case when member.projected_address is not null and member.address is null then
                    case when held.holder is null then 'gateway' else 'projected' end
                when member.proxy_address is not null then 'proxied'
                when member.address is not null then 'native'
                else 'chat' end,
           member.address,
           member.projected_address,
           case when member.projected_address is null then member.identity else held.holder end,
           coalesce(member.created_at, member.version_at),
           member.removed_at
    from public.participant as member
    left join public.tenure as held
        on held.conversation_sid = member.conversation_sid
        and held.line = member.projected_address
        and held.superseded_at is null
        and held.cause <> 'removed'
        and held.during @> roster_at.at
    where member.conversation_sid = roster_at.sid
      and coalesce(member.created_at, member.version_at) <= roster_at.at
      and (member.removed_at is null or member.removed_at > roster_at.at)
    order by member.participant_sid;
end;

revoke all on function audit.roster_at(text, timestamptz) from public;

-- Makes the roles where they are missing and gives each what it may do; safe to call again and from several processes
-- and databases at once, since roles belong to all databases of a server. Where the caller may not make roles, nothing
-- fails: the answer names what is missing, and somebody who may has to make it, and then to call this again.
create function ensure_audit_roles() returns text[] language plpgsql
set client_min_messages = error
as $$
declare
    missing text[] := '{}';
    wanted text;
    item record;
begin
    perform pg_advisory_xact_lock(hashtext('hookswitch.ensure_roles'));
    foreach wanted in array array['hookswitch_audit', 'hookswitch_audit_views'] loop
        if not exists (select from pg_roles where rolname = wanted) then
            begin
                execute format('create role %I nologin noinherit', wanted);
            exception
                -- Another database made it at the same moment.
                when duplicate_object or unique_violation then null;
                when insufficient_privilege then null;
            end;
        end if;
        if not exists (select from pg_roles where rolname = wanted) then
            missing := missing || format('role %s', wanted);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'hookswitch_audit_views') then
        begin
            if not pg_has_role(current_user, 'hookswitch_audit_views', 'member') then
                execute format('grant hookswitch_audit_views to %I', current_user);
            end if;
            grant usage, create on schema audit to hookswitch_audit_views;
            grant usage on schema public to hookswitch_audit_views;
            grant select on conversation, participant, message, delivery_receipt, tenure, transfer to hookswitch_audit_views;
            for item in
                select format('alter view audit.%I owner to hookswitch_audit_views', relname) as change
                from pg_class where relnamespace = 'audit'::regnamespace and relkind = 'v'
                    and relowner <> 'hookswitch_audit_views'::regrole
                union all
                select format('alter function %s owner to hookswitch_audit_views', oid::regprocedure)
                from pg_proc where pronamespace = 'audit'::regnamespace and proowner <> 'hookswitch_audit_views'::regrole
            loop
                execute item.change;
            end loop;
            revoke create on schema audit from hookswitch_audit_views;
        exception
            when insufficient_privilege then
                missing := missing || 'ownership of the views of schema audit'::text;
            when unique_violation or internal_error then
                -- Another database changed the same role at the same moment; the next call finishes it.
                missing := missing || 'ownership of the views of schema audit, until the next start'::text;
        end;
    end if;
    if exists (select from pg_roles where rolname = 'hookswitch_audit') then
        grant usage on schema audit to hookswitch_audit;
        for item in
            select format('grant select on audit.%I to hookswitch_audit', relname) as change
            from pg_class where relnamespace = 'audit'::regnamespace and relkind = 'v'
                and not has_table_privilege('hookswitch_audit', oid, 'select')
            union all
            select format('grant execute on function %s to hookswitch_audit', oid::regprocedure)
            from pg_proc where pronamespace = 'audit'::regnamespace
                and not has_function_privilege('hookswitch_audit', oid, 'execute')
        loop
            begin
                execute item.change;
            exception
                when insufficient_privilege then missing := missing || 'rights on the views of schema audit'::text;
            end;
        end loop;
    end if;
    return missing;
end
$$;

select ensure_audit_roles();
