-- The entries of a conversation that its timeline shows, without those that come with each message, receipt and member: the
-- timeline knows these from the mirror. `events.of_timeline` in src/events/store.rs has the same condition.
create index event_of_timeline on event (conversation_sid, occurred_at)
where conversation_sid is not null
  and type not in ('message.added', 'message.updated', 'message.removed', 'delivery.updated', 'participant.added',
                   'participant.updated', 'participant.removed', 'line.holder_changed', 'conversation.updated', 'send.queued',
                   'send.sent');
