-- migrate:up
-- muster: expand

-- The last enrollment that added to what is used, and how much: it is taken back if that enrollment never begins. The
-- earlier release leaves both as they are.
alter table continued_trial add column enrollment_id text collate "C";
alter table continued_trial add column added interval not null default '0';

-- migrate:down

alter table continued_trial drop column added, drop column enrollment_id;
