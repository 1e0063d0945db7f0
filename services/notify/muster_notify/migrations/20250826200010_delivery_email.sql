-- migrate:up transaction:false
-- muster: expand
-- muster: optional

-- An agency's e-mails, latest first: an endpoint that asked for the events of seats has a thousand times as many
-- deliveries. Those are not in the index, so they cost no more than before.
create index concurrently if not exists delivery_email
on delivery (agency_id, position) where channel = 'email';

-- migrate:down transaction:false

drop index concurrently if exists delivery_email;
