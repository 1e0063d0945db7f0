-- migrate:up transaction:false
-- muster: expand

-- A person's grants, including revoked ones: use that is reported late counts as it was granted.
create index concurrently if not exists entitlement_grant_of_subject on entitlement_grant (agency_id, subject_ref);

-- migrate:down transaction:false

drop index concurrently if exists entitlement_grant_of_subject;
