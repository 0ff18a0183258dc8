-- Why a message is not sent yet: what Twilio answered last, and since when it waits for that.
alter table outbound_message
    add column waiting_error text,
    add column waiting_since timestamptz,
    add constraint outbound_message_waiting check ((waiting_error is null) = (waiting_since is null));
