-- migrate:up transaction:false

-- A stream is replayed by position, whichever partitions its records are in.
create index concurrently if not exists parked_event_order
on parked_event (consumer_group, topic, agency_id, epoch, sequence, kafka_partition, kafka_offset);

-- migrate:down transaction:false

drop index concurrently if exists parked_event_order;
