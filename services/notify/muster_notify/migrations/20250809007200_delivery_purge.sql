-- migrate:up

-- The time up to which deliveries were purged: what happened before may have been announced, so it is not announced
-- again when someone has the topics read from the beginning.
create table delivery_purge (
    only_row boolean primary key default true check (only_row),
    before timestamptz -- null: nothing was purged
);
insert into delivery_purge default values;

do $$
declare
    worker text := current_schema() || '_worker';
begin
    execute format('grant select, update on table delivery_purge to %I', worker);
    execute format('grant delete on table delivery, delivery_attempt to %I', worker);
end $$;

-- migrate:down

do $$
begin
    execute format('revoke delete on table delivery, delivery_attempt from %I', current_schema() || '_worker');
end $$;
drop table delivery_purge;
