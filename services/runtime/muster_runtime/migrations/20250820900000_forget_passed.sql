-- migrate:up
-- muster: expand

-- A topic that was recreated has other records at the same offsets.
do $$
begin
    execute format('grant delete on table passed_record to %I', current_schema() || '_worker');
end $$;

-- migrate:down

do $$
begin
    execute format('revoke delete on table passed_record from %I', current_schema() || '_worker');
end $$;
