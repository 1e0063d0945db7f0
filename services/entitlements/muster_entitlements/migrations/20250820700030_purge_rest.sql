-- migrate:up
-- muster: expand

-- The worker deletes the events behind facts that are over, the use of quotas in ended periods, and old adoption days.
do $$
begin
    execute format(
        'grant delete on table fact_event, quota_use, adoption_day to %I', current_schema() || '_worker');
end $$;

-- migrate:down

do $$
begin
    execute format(
        'revoke delete on table fact_event, quota_use, adoption_day from %I', current_schema() || '_worker');
end $$;
