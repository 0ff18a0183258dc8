-- What is erased when, and what is not because of a legal hold. Owner: src/retention.

-- Of a conversation with a row here nothing is erased.
create table legal_hold (
    conversation_sid text primary key,
    reason text not null,
    held_by text not null,
    held_since timestamptz not null
);

-- How far each rule has come: in the webhooks by number, in the log by place. A hold that ends sends all back.
create table retention_progress (
    class text primary key check (class in ('webhooks', 'log')),
    commit_xid bigint not null default 0,
    number bigint not null default 0
);
insert into retention_progress (class) values ('webhooks'), ('log');

-- When the form of a webhook was erased; it is empty since.
alter table webhook add column erased_at timestamptz;
