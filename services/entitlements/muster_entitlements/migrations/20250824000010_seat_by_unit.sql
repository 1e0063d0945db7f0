-- migrate:up transaction:false
-- muster: expand

-- Seats by their unit. Most have none, and an import without units does not write the index.
create index concurrently if not exists seat_by_unit
on seat (agency_id, unit_key, seat_id) where unit_key is not null;

-- migrate:down transaction:false

drop index concurrently if exists seat_by_unit;
