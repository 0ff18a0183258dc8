-- Rows that are written again soon keep their place in the indexes where their page has room for the new version (HOT).
alter table conversation set (fillfactor = 70);
alter table participant set (fillfactor = 85);
alter table delivery_receipt set (fillfactor = 90);
