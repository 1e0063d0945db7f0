-- migrate:up
-- muster: expand

-- A compromised service could make a seal that ends beyond every row: no later row would be sealed, and none would look
-- unsealed. So a seal must end with an existing row of its agency.
create function audit_seal_ends_with_a_row() returns trigger
language plpgsql
as $$
begin
    if not exists (select from audit as a where a.agency_id = new.agency_id and a.id = new.last_id) then
        raise foreign_key_violation using
            message = format('no audit row of %s has the ID %s, with which the seal ends', new.agency_id, new.last_id);
    end if;
    return null;
end $$;
create trigger audit_seal_ends_with_a_row after insert on audit_seal
for each row execute function audit_seal_ends_with_a_row();

do $$
begin
    execute format('alter function audit_seal_ends_with_a_row() set search_path = %I, pg_temp', current_schema());
end $$;

-- migrate:down

drop trigger audit_seal_ends_with_a_row on audit_seal;
drop function audit_seal_ends_with_a_row();
