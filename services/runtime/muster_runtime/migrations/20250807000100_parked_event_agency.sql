-- migrate:up transaction:false

-- A stream is replayed in order, however many records wait in the topic's other streams.
create index concurrently if not exists parked_event_stream
on parked_event (consumer_group, topic, agency_id, kafka_partition, kafka_offset);

-- migrate:down transaction:false

drop index concurrently if exists parked_event_stream;
