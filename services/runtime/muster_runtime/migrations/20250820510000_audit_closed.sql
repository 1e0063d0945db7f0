-- migrate:up
-- muster: expand

-- Two things that a compromised service could do to its audit.
--
-- It could choose the id of a row that it inserts: after a row with the highest id, no row would ever be sealed again.
-- So both roles insert every column but that one.
do $$
declare
    columns text := 'recorded_at, agency_id, actor, command, subject, reason, before, after, request_id, correlation_id';
    role_name text;
begin
    foreach role_name in array array[current_schema() || '_api', current_schema() || '_worker'] loop
        execute format('revoke insert on table audit from %I', role_name);
        execute format('grant insert (%s) on table audit to %I', columns, role_name);
    end loop;
end $$;

-- And it could forge seals with old dates over recent rows, and have the rows deleted. Now the rows' own age counts as
-- well: what was recorded within `keep` stays, and so does its seal.
create or replace function drop_sealed_audit(keep interval, enough integer) returns bigint
language plpgsql volatile security definer
as $$
declare
    sealed record;
    dropped bigint := 0;
    deleted bigint;
    oldest_kept timestamptz := clock_timestamp() - keep;
begin
    if keep < interval '365 days' then
        raise exception 'keep is %: audit rows are kept for 365 days at least', keep
            using errcode = 'invalid_parameter_value';
    end if;
    for sealed in
        select s.agency_id, s.number, s.first_id, s.last_id
        from audit_seal as s
        where
            s.sealed_at <= oldest_kept
            and exists (select from audit_seal as n where n.agency_id = s.agency_id and n.number > s.number)
        order by s.sealed_at, s.agency_id, s.number
    loop
        exit when dropped >= enough;
        continue when exists (
            select from audit as a
            where
                a.agency_id = sealed.agency_id
                and a.id between sealed.first_id and sealed.last_id
                and a.recorded_at > oldest_kept
        );
        delete from audit as a
        where a.agency_id = sealed.agency_id and a.id between sealed.first_id and sealed.last_id;
        get diagnostics deleted = row_count;
        delete from audit_seal as s where s.agency_id = sealed.agency_id and s.number = sealed.number;
        dropped := dropped + deleted;
    end loop;
    return dropped;
end $$;

do $$
begin
    -- Replacing a function drops its setting.
    execute format(
        'alter function drop_sealed_audit(interval, integer) set search_path = %I, pg_temp', current_schema());
end $$;

-- migrate:down

do $$
declare
    role_name text;
begin
    foreach role_name in array array[current_schema() || '_api', current_schema() || '_worker'] loop
        execute format('revoke insert on table audit from %I', role_name);
        execute format('grant insert on table audit to %I', role_name);
    end loop;
end $$;

create or replace function drop_sealed_audit(keep interval, enough integer) returns bigint
language plpgsql volatile security definer
as $$
declare
    sealed record;
    dropped bigint := 0;
    deleted bigint;
begin
    if keep < interval '365 days' then
        raise exception 'keep is %: audit rows are kept for 365 days at least', keep
            using errcode = 'invalid_parameter_value';
    end if;
    for sealed in
        select s.agency_id, s.number, s.first_id, s.last_id
        from audit_seal as s
        where
            s.sealed_at <= clock_timestamp() - keep
            and exists (select from audit_seal as n where n.agency_id = s.agency_id and n.number > s.number)
        order by s.sealed_at, s.agency_id, s.number
    loop
        exit when dropped >= enough;
        delete from audit as a
        where a.agency_id = sealed.agency_id and a.id between sealed.first_id and sealed.last_id;
        get diagnostics deleted = row_count;
        delete from audit_seal as s where s.agency_id = sealed.agency_id and s.number = sealed.number;
        dropped := dropped + deleted;
    end loop;
    return dropped;
end $$;

do $$
begin
    execute format(
        'alter function drop_sealed_audit(interval, integer) set search_path = %I, pg_temp', current_schema());
end $$;
