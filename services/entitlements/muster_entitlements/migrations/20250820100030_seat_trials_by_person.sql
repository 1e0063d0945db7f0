-- migrate:up transaction:false
-- muster: expand

-- The seats of a person whose trial has begun, including those that they have lost.
create index concurrently if not exists seat_trial_of_subject
on seat (agency_id, subject_ref) where coalesce(trial_began_at, activated_at) is not null;

-- migrate:down transaction:false

drop index concurrently if exists seat_trial_of_subject;
