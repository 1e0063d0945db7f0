-- migrate:up

-- The trace that led to a delivery (W3C Trace Context): its attempts carry it on.
alter table delivery add column traceparent text;

-- migrate:down

alter table delivery drop column traceparent;
