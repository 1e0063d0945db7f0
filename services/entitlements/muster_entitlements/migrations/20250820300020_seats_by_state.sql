-- migrate:up transaction:false
-- muster: expand

-- Seats by their state. Most are assigned; the index leaves those out, so an import does not write it.
create index concurrently if not exists seat_by_state
on seat (agency_id, state, seat_id) where state <> 'assigned';

-- migrate:down transaction:false

drop index concurrently if exists seat_by_state;
