-- A webhook's row is written once: what becomes of it stands elsewhere, in small tables. Owner: src/inbox.

-- Numbers what enters the mirror, whatever the source, in the order in which it entered: it is drawn while the locks of
-- the conversations concerned are held, which no clock can say.
create sequence statement_number;

-- For the service's role, which has no rights of its own on a sequence.
create function next_statement_number() returns bigint language sql volatile security definer
set search_path = pg_catalog, public, pg_temp
    return nextval('public.statement_number');

-- Their names are for the tables; through them the copies below are quick.
alter index webhook_pending rename to webhook_pending_before;
alter index webhook_set_aside rename to webhook_set_aside_before;

-- Those that wait to be projected. Short-lived rows: cleaned often, so that the oldest is found at once.
create table webhook_pending (
    lane smallint not null,
    webhook_id bigint not null,
    primary key (lane, webhook_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_insert_threshold = -1);

create table webhook_set_aside (
    webhook_id bigint primary key,
    reason text not null,
    set_aside_at timestamptz not null
);

-- What one transaction projected, and when.
create table projected_batch (
    number bigint primary key default next_statement_number(),
    projected_at timestamptz not null,
    webhook_ids bigint[] not null
);
create index projected_batch_at on projected_batch (projected_at);

insert into webhook_pending (lane, webhook_id) select lane, webhook_id from webhook where state = 'pending';
insert into webhook_set_aside (webhook_id, reason, set_aside_at)
    select webhook_id, reason, settled_at from webhook where state = 'set_aside';
insert into projected_batch (projected_at, webhook_ids)
    select settled_at, array_agg(webhook_id order by webhook_id)
    from webhook where state = 'projected' group by settled_at order by settled_at;

drop index webhook_pending_before, webhook_set_aside_before, webhook_of_conversation;
alter table webhook drop column state, drop column reason, drop column settled_at;

-- For people at a prompt, and whoever looks at few.
create view webhook_state as
    select webhook.webhook_id,
           case when pending.webhook_id is not null then 'pending'
                when aside.webhook_id is not null then 'set_aside'
                else 'projected' end as state,
           aside.reason
    from webhook
    left join webhook_pending as pending using (webhook_id)
    left join webhook_set_aside as aside using (webhook_id);
