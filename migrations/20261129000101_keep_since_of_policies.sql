-- When parts of a policy came to it, so that a version that adds a rule, a team or a number does not look back. What is not
-- named has been there since it was enabled.
alter table escalation_policy add column since jsonb not null default '{}';

-- When somebody came to the team that they are in, or left the one that they were in: until then what was due on their lines was
-- the business of other policies. Null: not since this is kept. Owner: src/people; src/escalation reads it.
alter table agent add column team_since timestamptz;
create function agent_moves() returns trigger language plpgsql as $$
begin
    new.team_since := new.updated_at;
    return new;
end $$;
create trigger agent_joins before insert on agent
    for each row when (new.team_id is not null) execute function agent_moves();
create trigger agent_moves before update of team_id on agent
    for each row when (old.team_id is distinct from new.team_id) execute function agent_moves();

-- Who is added, or removed, has or had lines too: policies for a team, hours and absences count, or count no more.
create function escalation_marks_agent_of(who text) returns void language plpgsql as $$
begin
    if exists (select from escalation_policy where enabled) then
        insert into escalation_watch (conversation_sid, line, look_at)
        select conversation_sid, line, 'epoch' from tenure
        where holder = who and superseded_at is null and upper_inf(during)
        order by conversation_sid, line
        on conflict (conversation_sid, line) do update
        set look_at = 'epoch', lease_token = null, lease_expires_at = null;
    end if;
end $$;
create or replace function escalation_marks_agent() returns trigger language plpgsql as $$
begin
    perform escalation_marks_agent_of(case when tg_op = 'DELETE' then old.identity else new.identity end);
    return null;
end $$;
create trigger escalation_marks_new after insert or delete on agent
    for each row execute function escalation_marks_agent();
