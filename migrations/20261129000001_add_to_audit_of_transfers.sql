-- What the protocol of transfers has come to keep, for auditors too. Owner: src/audit.
create or replace view audit.transfers as
select transfer_id, conversation_sid, account_sid, line, kind, from_holder, to_holder, state, requested_by, decided_by,
       reason, note, outcome_code, outcome_detail, method, contested_from, contested_to, created_at, updated_at, finished_at,
       decided_as, supersedes, superseded_by, introduction, offer_expires_at, swap_deadline_at, waiting_for, waiting_since
from transfer;
