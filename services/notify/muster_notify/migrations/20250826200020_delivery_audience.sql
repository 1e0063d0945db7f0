-- migrate:up transaction:false
-- muster: expand
-- muster: optional

-- What an agency finds of the deliveries about it, latest first: those to its own recipients. The operators' endpoints
-- may have a thousand times as many of them, which are not in the index.
create index concurrently if not exists delivery_audience
on delivery (agency_id, audience, position) where audience <> '*';

-- migrate:down transaction:false

drop index concurrently if exists delivery_audience;
