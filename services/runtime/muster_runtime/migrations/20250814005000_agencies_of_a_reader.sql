-- migrate:up

-- What the api role reads of a table: the rows of the agencies in `muster.agency`, separated by commas, or all for '*'.
-- One agency, the usual case, is compared first.
create function permit_reads(target regclass) returns void
language plpgsql
as $$
begin
    execute format(
        'alter policy api_read on %s using ('
        'agency_id = (select current_setting(''muster.agency'', true)) '
        'or (select current_setting(''muster.agency'', true)) = ''*'' '
        'or agency_id = any ((select string_to_array(current_setting(''muster.agency'', true), '',''))::text[]))',
        target);
end $$;

-- As before, with that policy.
create or replace function protect(target regclass, api text, worker text) returns void
language plpgsql
as $$
declare
    role_api text := current_schema() || '_api';
    role_worker text := current_schema() || '_worker';
begin
    execute format('alter table %s enable row level security', target);
    execute format('alter table %s force row level security', target);
    execute format('create policy api_read on %s for select to %I', target, role_api);
    perform permit_reads(target);
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
        where c.relnamespace = current_schema()::regnamespace and p.polname = 'api_read'
    loop
        perform permit_reads(target);
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
        where c.relnamespace = current_schema()::regnamespace and p.polname = 'api_read'
    loop
        execute format(
            'alter policy api_read on %s using ('
            'agency_id = (select current_setting(''muster.agency'', true)) '
            'or (select current_setting(''muster.agency'', true)) = ''*'')', target);
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

drop function permit_reads(regclass);
