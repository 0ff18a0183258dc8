-- Whoever claims looks for tasks of some kinds: those of others that are due, as many as they are, are not walked past.
create index task_due_of_kind on task (kind, run_at, task_id) where state = 'ready';
drop index task_due;
