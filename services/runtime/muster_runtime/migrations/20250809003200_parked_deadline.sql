-- migrate:up

-- A deadline that could not be handled is parked, so that the agency's other deadlines do not wait for it.
alter table deadline add column parked_at timestamptz;
alter table deadline add column reason text;

-- migrate:down

alter table deadline drop column reason;
alter table deadline drop column parked_at;
