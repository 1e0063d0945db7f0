-- migrate:up

-- The number of records in streams that were parked before records were counted (20250807000000): that migration forgot
-- that forced row-level security hides every row from the owner, and left the numbers at zero.
alter table parked_stream no force row level security;
alter table parked_event no force row level security;
update parked_stream as s
set records = counted.records
from (
    select consumer_group, topic, agency_id, count(*) as records
    from parked_event
    group by consumer_group, topic, agency_id
) as counted
where
    counted.consumer_group = s.consumer_group and counted.topic = s.topic and counted.agency_id = s.agency_id
    and counted.records <> s.records;
alter table parked_event force row level security;
alter table parked_stream force row level security;

-- migrate:down
