-- migrate:up

-- An agency's seats are checked for idleness step by step.
alter table seat_policy add column swept_seat_id text collate "C" not null default ''; -- the last seat checked
alter table seat_policy add column forgetting boolean not null default false; -- warnings are void: no seat is idle now
do $$
begin
    execute format('grant update on seat_policy to %I', current_schema() || '_worker');
end $$;

-- migrate:down

do $$
begin
    execute format('revoke update on seat_policy from %I', current_schema() || '_worker');
end $$;
alter table seat_policy drop column forgetting, drop column swept_seat_id;
