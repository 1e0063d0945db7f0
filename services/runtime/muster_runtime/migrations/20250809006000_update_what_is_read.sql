-- migrate:up

-- Which rows the runtime roles may update, and what the rows may become. The api role updates what it reads, and while
-- it holds locks, never another agency's row, whatever the statement says. Without a lock, an operator's statement can
-- name any row that it reads, so that the update fails with an error; it cannot change the row.
create function permit_updates(target regclass) returns void
language plpgsql
as $$
declare
    locked text := 'agency_id = any ((select locked_agencies())::text[])';
begin
    execute format(
        'create policy api_update on %s for update to %I using ('
        'agency_id = (select current_setting(''muster.agency'', true)) '
        'or ((select current_setting(''muster.agency'', true)) = ''*'' and (select locked_agencies()) is null)) '
        'with check (%s)', target, current_schema() || '_api', locked);
    execute format(
        'create policy worker_update on %s for update to %I using (true) with check (%s)',
        target, current_schema() || '_worker', locked);
end $$;

-- Force row-level security on a table with an agency, and grant what its two runtime roles may do.
-- The api role reads the tenant's rows (or, for an operator, '*': every row); the worker role reads all.
-- Both write only to agencies that the transaction has locked: a write without the lock is refused.
create or replace function protect(target regclass, api text, worker text) returns void
language plpgsql
as $$
declare
    role_api text := current_schema() || '_api';
    role_worker text := current_schema() || '_worker';
begin
    execute format('alter table %s enable row level security', target);
    execute format('alter table %s force row level security', target);
    execute format(
        'create policy api_read on %s for select to %I using ('
        'agency_id = (select current_setting(''muster.agency'', true)) '
        'or (select current_setting(''muster.agency'', true)) = ''*'')', target, role_api);
    execute format('create policy worker_read on %s for select to %I using (true)', target, role_worker);
    execute format(
        'create policy locked_insert on %s for insert to %I, %I '
        'with check (agency_id = any ((select locked_agencies())::text[]))', target, role_api, role_worker);
    perform permit_updates(target);
    execute format(
        'create policy api_delete on %s for delete to %I '
        'using (agency_id = any ((select locked_agencies())::text[]))', target, role_api);
    execute format('create policy worker_delete on %s for delete to %I using (true)', target, role_worker);
    if api <> '' then
        execute format('grant %s on table %s to %I', api, target, role_api);
    end if;
    if worker <> '' then
        execute format('grant %s on table %s to %I', worker, target, role_worker);
    end if;
end $$;

-- The tables that already exist.
do $$
declare
    target regclass;
begin
    for target in
        select p.polrelid::regclass
        from pg_policy as p
        join pg_class as c on c.oid = p.polrelid
        where c.relnamespace = current_schema()::regnamespace and p.polname = 'locked_update'
    loop
        execute format('drop policy locked_update on %s', target);
        perform permit_updates(target);
    end loop;
end $$;

-- migrate:down

do $$
declare
    target regclass;
begin
    for target in
        select p.polrelid::regclass
        from pg_policy as p
        join pg_class as c on c.oid = p.polrelid
        where c.relnamespace = current_schema()::regnamespace and p.polname = 'api_update'
    loop
        execute format('drop policy api_update on %s', target);
        execute format('drop policy worker_update on %s', target);
        execute format(
            'create policy locked_update on %s for update to %I, %I '
            'using (true) with check (agency_id = any ((select locked_agencies())::text[]))',
            target, current_schema() || '_api', current_schema() || '_worker');
    end loop;
end $$;

create or replace function protect(target regclass, api text, worker text) returns void
language plpgsql
as $$
declare
    role_api text := current_schema() || '_api';
    role_worker text := current_schema() || '_worker';
begin
    execute format('alter table %s enable row level security', target);
    execute format('alter table %s force row level security', target);
    execute format(
        'create policy api_read on %s for select to %I using ('
        'agency_id = (select current_setting(''muster.agency'', true)) '
        'or (select current_setting(''muster.agency'', true)) = ''*'')', target, role_api);
    execute format('create policy worker_read on %s for select to %I using (true)', target, role_worker);
    execute format(
        'create policy locked_insert on %s for insert to %I, %I '
        'with check (agency_id = any ((select locked_agencies())::text[]))', target, role_api, role_worker);
    execute format(
        'create policy locked_update on %s for update to %I, %I '
        'using (true) with check (agency_id = any ((select locked_agencies())::text[]))', target, role_api, role_worker);
    execute format(
        'create policy api_delete on %s for delete to %I '
        'using (agency_id = any ((select locked_agencies())::text[]))', target, role_api);
    execute format('create policy worker_delete on %s for delete to %I using (true)', target, role_worker);
    if api <> '' then
        execute format('grant %s on table %s to %I', api, target, role_api);
    end if;
    if worker <> '' then
        execute format('grant %s on table %s to %I', worker, target, role_worker);
    end if;
end $$;

drop function permit_updates(regclass);
