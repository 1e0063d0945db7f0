-- migrate:up
-- muster: expand

-- A single delivery with a date that no program can read stopped the deliveries of all agencies.
alter table delivery add constraint delivery_instants_readable
check (
    readable_instant(recorded_at) is not null
    and (next_attempt_at is null or readable_instant(next_attempt_at) is not null)
    and (finished_at is null or readable_instant(finished_at) is not null)
) not valid;

-- migrate:down

alter table delivery drop constraint delivery_instants_readable;
