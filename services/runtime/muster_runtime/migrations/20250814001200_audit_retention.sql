-- migrate:up

-- Delete audit rows by whole seals that were made longer ago than `keep`, oldest first, until `enough` rows are deleted;
-- returns how many were. Only the owner may delete an audit row, and this is all that the worker role can have
-- deleted: never an agency's newest seal, from which the next one continues, and nothing younger than a year. The
-- server's clock counts, which no caller sets.
create function drop_sealed_audit(keep interval, enough integer) returns bigint
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
declare
    target text;
begin
    -- Temporary tables come last: a caller's temporary table must not stand in for one of these.
    execute format(
        'alter function drop_sealed_audit(interval, integer) set search_path = %I, pg_temp', current_schema());
    revoke all on function drop_sealed_audit(interval, integer) from public;
    execute format(
        'grant execute on function drop_sealed_audit(interval, integer) to %I', current_schema() || '_worker');
    -- Row-level security is forced, so the owner, as whom the function runs, needs policies too.
    foreach target in array array['audit', 'audit_seal'] loop
        execute format('create policy retention_read on %I for select to %I using (true)', target, current_user);
        execute format('create policy retention_delete on %I for delete to %I using (true)', target, current_user);
    end loop;
end $$;

-- migrate:down

drop policy retention_delete on audit_seal;
drop policy retention_read on audit_seal;
drop policy retention_delete on audit;
drop policy retention_read on audit;
drop function drop_sealed_audit(interval, integer);
