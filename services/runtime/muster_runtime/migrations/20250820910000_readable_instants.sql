-- migrate:up
-- muster: expand

-- A compromised service could write a date that no program can read, such as one before Christ. One such row stopped a
-- duty for all agencies: the sealer, the relay's gauges, the scheduler.

-- The instant itself, or null if it is not of the years 2000 to 9999 (UTC).
create function readable_instant(instant timestamptz) returns timestamptz
language sql immutable parallel safe
as $$
    select case
        when instant >= '2000-01-01 00:00:00+00' and instant < '10000-01-01 00:00:00+00' then instant
    end
$$;

-- First the table that every command writes first: otherwise this could deadlock with a command.
alter table agency_instant add constraint agency_instant_latest_readable
check (readable_instant(latest) is not null) not valid;
-- Existing rows stay as they are: nobody may change an audit row.
alter table audit add constraint audit_recorded_at_readable
check (readable_instant(recorded_at) is not null) not valid;
alter table audit_seal add constraint audit_seal_sealed_at_readable
check (readable_instant(sealed_at) is not null) not valid;
alter table personal_read add constraint personal_read_read_at_readable
check (readable_instant(read_at) is not null) not valid;
alter table idempotency add constraint idempotency_recorded_at_readable
check (readable_instant(recorded_at) is not null) not valid;
alter table parked_stream add constraint parked_stream_parked_at_readable
check (readable_instant(parked_at) is not null) not valid;
-- Times that a request names may be earlier.
alter table outbox add constraint outbox_instants_readable
check (
    readable_instant(recorded_at) is not null
    and time >= '0001-01-02 00:00:00+00' and time < '10000-01-01 00:00:00+00'
) not valid;
alter table deadline add constraint deadline_instants_readable
check (
    due_at >= '0001-01-02 00:00:00+00' and due_at < '10000-01-01 00:00:00+00'
    and (parked_at is null or readable_instant(parked_at) is not null)
) not valid;

-- migrate:down

alter table deadline drop constraint deadline_instants_readable;
alter table outbox drop constraint outbox_instants_readable;
alter table parked_stream drop constraint parked_stream_parked_at_readable;
alter table idempotency drop constraint idempotency_recorded_at_readable;
alter table agency_instant drop constraint agency_instant_latest_readable;
alter table personal_read drop constraint personal_read_read_at_readable;
alter table audit_seal drop constraint audit_seal_sealed_at_readable;
alter table audit drop constraint audit_recorded_at_readable;
drop function readable_instant(timestamptz);
