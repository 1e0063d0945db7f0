-- migrate:up

-- A raised epoch also applies to the events that wait to be published.
do $$
begin
    execute format('grant update on table outbox to %I', current_schema() || '_worker');
end $$;

-- migrate:down

do $$
begin
    execute format('revoke update on table outbox from %I', current_schema() || '_worker');
end $$;
