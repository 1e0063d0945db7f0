-- migrate:up transaction:false
-- muster: expand

-- The seats that a person has lost.
create index concurrently if not exists seat_revoked_of_subject
on seat (agency_id, subject_ref) where state = 'revoked';

-- migrate:down transaction:false

drop index concurrently if exists seat_revoked_of_subject;
