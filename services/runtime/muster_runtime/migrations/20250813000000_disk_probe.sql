-- migrate:up

-- For testing whether the disk has room again. Every insert is rolled back: the table holds no rows.
create table disk_probe (filling text not null);

do $$
begin
    execute format('grant insert on table disk_probe to %I', current_schema() || '_worker');
end $$;

-- migrate:down

drop table disk_probe;
