-- Messages that are on their way, or of which it is not known whether they were sent: what operators look through.
create index outbound_message_open on outbound_message (created_at, outbound_message_id)
    where state in ('queued', 'sending', 'needs_attention');
