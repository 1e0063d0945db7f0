-- migrate:up

-- The reply to a request that the schema refuses depends on whether a migration is pending: the api role may now ask.
do $$
begin
    execute format('grant select on table schema_migrations to %I', current_schema() || '_api');
end $$;

-- migrate:down

do $$
begin
    execute format('revoke select on table schema_migrations from %I', current_schema() || '_api');
end $$;
