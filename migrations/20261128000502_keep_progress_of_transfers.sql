-- What people wrote of transfers goes by age, as what messages say does. Owners: src/transfer, src/retention.
insert into retention_progress (place) values ('transfers.words');
