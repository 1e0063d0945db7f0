-- migrate:up

-- Where it is tried whether the disk has room again. Every such insert is rolled back: it holds no row.
create table disk_probe (filling text not null);

do $$
begin
    execute format('grant insert on table disk_probe to %I', current_schema() || '_worker');
end $$;

-- migrate:down

drop table disk_probe;
