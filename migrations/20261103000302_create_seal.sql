-- The log is sealed: a chain of hashes over batches of entries, so that a change of what was written is found.
-- Owner: src/audit. What of an entry may be personal is sealed as salted hashes, so that it can be erased and the chain
-- still be checked.

-- A hash alone would tell a phone number to whoever tries them all.
alter table event add column salt uuid default gen_random_uuid();
-- Of an erased entry: for each of subject, actor, cause and data either {"digest": …} or, where it was kept, {"salt": …}.
alter table event add column erased jsonb;
alter table event add constraint event_salted_unless_erased check ((salt is null) = (erased is not null));

create table seal (
    seal_number bigint primary key check (seal_number > 0),
    first_commit_xid bigint not null,
    first_event_id bigint not null,
    last_commit_xid bigint not null,
    last_event_id bigint not null,
    entries bigint not null check (entries > 0),
    -- SHA-256 over the hashes of the entries, in order.
    root bytea not null check (length(root) = 32),
    -- The first eight bytes of each entry's hash: they prove nothing, they say which entry it is that differs.
    marks bytea not null,
    previous bytea not null check (length(previous) = 32),
    hash bytea not null unique check (length(hash) = 32),
    sealed_at timestamptz not null
);

-- The log and its seals are written once. Refused for everybody, the owner too, but for what says that it means it.
create function refuse_change_of_log() returns trigger language plpgsql as $$
begin
    if current_setting('hookswitch.change_log', true) = 'yes' then
        if tg_op = 'DELETE' then
            return old;
        end if;
        return new;
    end if;
    raise exception 'the log is written once: % of % is refused', lower(tg_op), tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;
create trigger event_written_once before update or delete on event for each row execute function refuse_change_of_log();
create trigger event_not_emptied before truncate on event for each statement execute function refuse_change_of_log();
create trigger seal_written_once before update or delete on seal for each row execute function refuse_change_of_log();
create trigger seal_not_emptied before truncate on seal for each statement execute function refuse_change_of_log();

create function event_field_salt(salt uuid, name text) returns bytea language sql immutable
    return sha256(uuid_send(salt) || convert_to(name, 'UTF8'));

create function event_field_digest(field_salt bytea, value text) returns bytea language sql immutable
    return sha256(field_salt || case when value is null then '\x00'::bytea else '\x01'::bytea || convert_to(value, 'UTF8') end);

-- The one way to take something out of the log: the named fields (subject, actor, cause, data) of one entry give way to
-- their salted hashes, and their salt goes. Answers whether anything was there to be erased. Who may call it cannot
-- change the log otherwise.
create function erase_from_log(xid bigint, id bigint, fields text[]) returns boolean language plpgsql security definer
set search_path = pg_catalog, public, pg_temp
as $$
declare
    entry public.event;
    marks jsonb := '{}';
    item record;
    field_salt bytea;
begin
    if not fields <@ array['subject', 'actor', 'cause', 'data'] or cardinality(fields) = 0 then
        raise exception 'expected some of subject, actor, cause and data';
    end if;
    select * into entry from public.event where commit_xid = xid and event_id = id for update;
    if not found then
        return false;
    end if;
    for item in
        select name, value from (values ('subject', entry.subject), ('actor', entry.actor), ('cause', entry.cause),
                                        ('data', entry.data)) as field (name, value)
    loop
        if entry.erased -> item.name ? 'digest' then
            marks := marks || jsonb_build_object(item.name, entry.erased -> item.name);
            continue;
        end if;
        field_salt := case when entry.salt is not null then public.event_field_salt(entry.salt, item.name)
                           else decode(entry.erased -> item.name ->> 'salt', 'hex') end;
        marks := marks || jsonb_build_object(item.name, case
            when item.name = any(fields) then
                jsonb_build_object('digest', encode(public.event_field_digest(field_salt, item.value), 'hex'))
            else jsonb_build_object('salt', encode(field_salt, 'hex')) end);
    end loop;
    if marks = entry.erased then
        return false;
    end if;
    perform set_config('hookswitch.change_log', 'yes', true);
    update public.event
    set salt = null,
        erased = marks,
        subject = case when marks -> 'subject' ? 'digest' then 'erased' else subject end,
        actor = case when marks -> 'actor' ? 'digest' then null else actor end,
        cause = case when marks -> 'cause' ? 'digest' then null else cause end,
        data = case when marks -> 'data' ? 'digest' then '{"erased":true}' else data end
    where commit_xid = xid and event_id = id;
    perform set_config('hookswitch.change_log', '', true);
    return true;
end
$$;
revoke all on function erase_from_log(bigint, bigint, text[]) from public;

-- The role as which the service works: all of the application's tables, but of the log and its seals only to read and
-- to add. A table made later is given to it at the next start.
create function ensure_app_role() returns text[] language plpgsql
set client_min_messages = error
as $$
declare
    missing text[] := '{}';
    item record;
begin
    perform pg_advisory_xact_lock(hashtext('hookswitch.ensure_roles'));
    if not exists (select from pg_roles where rolname = 'hookswitch_app') then
        begin
            create role hookswitch_app nologin noinherit;
        exception
            when duplicate_object or unique_violation or insufficient_privilege then null;
        end;
    end if;
    if not exists (select from pg_roles where rolname = 'hookswitch_app') then
        return missing || 'role hookswitch_app'::text;
    end if;
    begin
        if not pg_has_role(current_user, 'hookswitch_app', 'member') then
            execute format('grant hookswitch_app to %I', current_user);
        end if;
    exception
        when insufficient_privilege or unique_violation or internal_error then
            missing := missing || 'membership in hookswitch_app'::text;
    end;
    begin
        if not has_schema_privilege('hookswitch_app', 'public', 'usage') then
            grant usage on schema public to hookswitch_app;
        end if;
        alter default privileges in schema public grant select, insert, update, delete on tables to hookswitch_app;
        for item in
            select format('grant select, insert%s on %s to hookswitch_app',
                          case when relname in ('event', 'seal') then '' else ', update, delete' end, oid::regclass) as change
            from pg_class
            where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and relname <> '_sqlx_migrations'
              and not (has_table_privilege('hookswitch_app', oid, 'insert')
                       and (relname in ('event', 'seal') or has_table_privilege('hookswitch_app', oid, 'delete')))
        loop
            execute item.change;
        end loop;
        if not has_function_privilege('hookswitch_app', 'erase_from_log(bigint, bigint, text[])', 'execute') then
            grant execute on function erase_from_log(bigint, bigint, text[]) to hookswitch_app;
        end if;
    exception
        when insufficient_privilege then
            missing := missing || 'rights of hookswitch_app'::text;
    end;
    return missing;
end
$$;

select ensure_app_role();
