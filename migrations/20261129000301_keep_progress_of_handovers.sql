-- What people wrote of handover plans goes by age, as what they wrote of the transfers does. Owners: src/handover, src/retention.
insert into retention_progress (place) values ('handovers.words');
