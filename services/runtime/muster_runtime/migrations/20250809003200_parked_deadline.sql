-- migrate:up

-- A deadline that could not be handled is parked, and keeps no other of its agency waiting.
alter table deadline add column parked_at timestamptz;
alter table deadline add column reason text;

-- migrate:down

alter table deadline drop column reason;
alter table deadline drop column parked_at;
