-- migrate:up

-- Requests whose reply had people's names or addresses: who read them, and whose they were. Without its row here, a
-- request gets no reply. Unlike the audit, the row is written without the agency's lock, is not sealed, and is
-- eventually deleted.
create table personal_read (
    id bigint generated always as identity primary key,
    read_at timestamptz not null,
    agency_id text not null,
    actor text not null,
    route text not null,
    subject_refs text [] not null,
    request_id text
);
create index personal_read_agency_id on personal_read (agency_id, id);
create index personal_read_read_at on personal_read (read_at);
select protect('personal_read', api => 'select, insert', worker => 'select, insert, delete');

do $$
begin
    execute format(
        'create policy reader_insert on personal_read for insert to %I '
        'with check (agency_id = (select current_setting(''muster.agency'', true)))', current_schema() || '_api');
    execute format(
        'create policy worker_insert on personal_read for insert to %I with check (true)',
        current_schema() || '_worker');
end $$;

-- migrate:down

drop table personal_read;
