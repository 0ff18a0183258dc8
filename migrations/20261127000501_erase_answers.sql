-- Recorded answers say what Twilio told, word for word, as the forms of webhooks do, and go by the same rule. Owners:
-- src/projection, src/retention.
alter table answer add column erased jsonb;
insert into retention_progress (place) values ('answers');
