-- A hold that ends sends no rule back to the beginning: of the conversation itself what has become due meanwhile is gone
-- through apart, in each of the places that are gone through once. Owner: src/retention.
create table retention_released (
    conversation_sid text not null,
    place text not null references retention_progress,
    commit_xid bigint not null default 0,
    number bigint not null default 0,
    primary key (place, conversation_sid)
);
