-- Recorded answers are gone through in pages, as a step of its own. Owner: src/erasure.
alter table erasure
    drop constraint erasure_step_check,
    add constraint erasure_step_check
        check (step in ('find', 'twilio', 'conversations', 'webhooks', 'log', 'answers', 'rest', 'done'));
