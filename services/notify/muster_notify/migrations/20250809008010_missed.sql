-- migrate:up transaction:false

-- What an endpoint missed, in the order of a replay.
create index concurrently if not exists delivery_missed
on delivery (recipient, agency_id, position) where state = 'failed';

-- migrate:down transaction:false

drop index concurrently if exists delivery_missed;
