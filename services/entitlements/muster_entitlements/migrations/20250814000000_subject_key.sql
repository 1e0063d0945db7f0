-- migrate:up

-- The key that the subject references are made with: another key would give the same person a second reference.
create table subject_key (
    only_row boolean primary key default true check (only_row),
    fingerprint text not null
);
do $$
begin
    execute format('grant select, insert on table subject_key to %I', current_schema() || '_worker');
end $$;

-- migrate:down
drop table subject_key;
