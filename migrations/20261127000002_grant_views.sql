-- The service's role reads the views of the schema, too, also where it was made after them; and it alone draws numbers for
-- statements. Owner: src/audit.
revoke all on function next_statement_number() from public;

create or replace function ensure_app_role() returns text[] language plpgsql
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
        for item in
            select format('grant select on %s to hookswitch_app', oid::regclass) as change
            from pg_class
            where relnamespace = 'public'::regnamespace and relkind = 'v' and not has_table_privilege('hookswitch_app', oid, 'select')
        loop
            execute item.change;
        end loop;
        for item in
            select format('grant execute on function %s to hookswitch_app', name) as change
            from unnest(array['erase_from_log(bigint, bigint, text[])', 'next_statement_number()']) as name
            where not has_function_privilege('hookswitch_app', name, 'execute')
        loop
            execute item.change;
        end loop;
    exception
        when insufficient_privilege then
            missing := missing || 'rights of hookswitch_app'::text;
    end;
    return missing;
end
$$;

select ensure_app_role();
