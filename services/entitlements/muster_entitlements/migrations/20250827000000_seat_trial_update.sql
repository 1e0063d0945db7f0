-- migrate:up
-- muster: expand

-- A person who loses a second seat may have begun its trial earlier than the first one's.
do $$
begin
    execute format('grant update on seat_trial to %I, %I', current_schema() || '_api', current_schema() || '_worker');
end $$;

-- migrate:down

do $$
begin
    execute format(
        'revoke update on seat_trial from %I, %I', current_schema() || '_api', current_schema() || '_worker'
    );
end $$;
