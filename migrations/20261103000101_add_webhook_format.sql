-- Event Streams: an event of a body becomes one webhook, and `form` then holds the event's own JSON as it came.

alter table webhook
    add column format text not null default 'form' check (format in ('form', 'cloud_event'));
