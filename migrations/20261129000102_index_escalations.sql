-- What is open, or waits for a person, among all that ever was.
create index escalation_by_state on escalation (state, started_at, escalation_id);

-- Who was away when, one after the other: of each, the last that was said before a time and what was said after it.
create index event_of_availability_of on event (subject, occurred_at, event_id) where type = 'agent.availability_changed';
drop index event_of_availability;
