-- migrate:up

create table note (
    note_id text primary key,
    agency_id text not null,
    text text not null,
    version integer not null default 1
);
create index note_agency_id on note (agency_id, note_id);
select protect('note', api => 'select, insert, update', worker => 'select, insert, update');

-- migrate:down

drop table note;
