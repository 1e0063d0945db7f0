-- migrate:up transaction:false
-- muster: expand

-- Trials of seats end in the order in which they began. A seat that nobody has activated has no entry: an import, which
-- activates none, does not write it.
create index concurrently if not exists seat_trial_began_at
on seat (agency_id, coalesce(trial_began_at, activated_at), seat_id)
where coalesce(trial_began_at, activated_at) is not null;

-- migrate:down transaction:false

drop index concurrently if exists seat_trial_began_at;
