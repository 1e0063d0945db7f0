-- migrate:up

-- Consecutive audit rows of an agency, and the hash that covers them and the previous seal: a row that is changed,
-- removed, or inserted later no longer agrees with it. Each seal is on the service's audit topic, too.
create table audit_seal (
    agency_id text not null,
    number bigint not null check (number >= 1),
    first_id bigint not null,
    last_id bigint not null check (last_id >= first_id),
    count bigint not null check (count between 1 and last_id - first_id + 1),
    sha256 text not null,
    previous_sha256 text not null,
    sealed_at timestamptz not null,
    primary key (agency_id, number)
);
create index audit_seal_sealed_at on audit_seal (sealed_at);
select protect('audit_seal', api => 'select', worker => 'select, insert');

-- migrate:down

drop table audit_seal;
