-- Media that the CRM uploaded, to go with a message of the same conversation. Owner: src/outbox.

create table outbound_media (
    conversation_sid text not null,
    media_id uuid not null,
    content_type text not null,
    filename text,
    size_bytes bigint not null check (size_bytes > 0),
    -- The bytes, until nothing comes of them any more.
    content bytea,
    -- The message that it goes with; a message takes it once.
    outbound_message_id uuid,
    -- What Twilio calls it, and since when: it keeps media that no message has taken for some minutes only.
    twilio_media_sid text,
    uploaded_at timestamptz,
    requested_by text not null,
    created_at timestamptz not null,
    erased_at timestamptz,
    primary key (conversation_sid, media_id),
    constraint outbound_media_uploaded check ((twilio_media_sid is null) = (uploaded_at is null))
);
-- Pictures and the like are compressed already.
alter table outbound_media alter column content set storage external;
create index outbound_media_of_message on outbound_media (conversation_sid, outbound_message_id) where outbound_message_id is not null;
create index outbound_media_kept on outbound_media (created_at) where content is not null;

-- How many media go with it, so that a message without any is sent without looking for them.
alter table outbound_message add column media_count smallint not null default 0;

-- Names of files are erased with the words of sends.
insert into retention_progress (place) values ('sends.media');
