-- migrate:up

-- The latest instant of any transaction of an agency: no later one is dated before it, whatever its process's clock says.
-- Every writing transaction updates one row, in the page that holds the row if there is room.
create table agency_instant (
    agency_id text primary key,
    latest timestamptz not null
) with (fillfactor = 50);
select protect('agency_instant', api => 'select, insert, update', worker => 'select, insert, update');

-- Take the lock of each agency, as above, for a transaction at `instant` by its process's clock. Returns the instant
-- that counts, `latest`: never before that of an earlier transaction of any of the agencies. `entered` and `locked` are
-- the server's time before and after the wait for the locks.
create function lock_agencies(
    agencies text[], instant timestamptz,
    out latest timestamptz, out entered timestamptz, out locked timestamptz
)
language plpgsql volatile
as $$
begin
    entered := clock_timestamp();
    perform lock_agencies(agencies);
    with kept as (
        insert into agency_instant as known (agency_id, latest)
        select distinct agency, instant from unnest(agencies) as a(agency)
        on conflict (agency_id) do update set latest = greatest(known.latest, excluded.latest)
        returning known.latest
    )
    select max(kept.latest) into latest from kept;
    if latest > instant and cardinality(agencies) > 1 then
        update agency_instant as known set latest = lock_agencies.latest
        where known.agency_id = any (agencies) and known.latest < lock_agencies.latest;
    end if;
    locked := clock_timestamp();
end $$;

-- migrate:down

drop function lock_agencies(text[], timestamptz);
drop table agency_instant;
