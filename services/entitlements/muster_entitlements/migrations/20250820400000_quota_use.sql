-- migrate:up
-- muster: expand

-- How much a person, or an agency, had used of a quota when its last threshold was published: copies of the
-- entitlements are sent this. The next period's use replaces it.
create table quota_use (
    agency_id text collate "C" not null,
    subject_ref text collate "C" not null, -- empty: the whole agency
    feature text collate "C" not null,
    used bigint not null,
    quota bigint not null,
    starts_at timestamptz not null, -- of the period
    ends_at timestamptz not null, -- exclusive
    primary key (agency_id, subject_ref, feature)
);
select protect('quota_use', api => 'select, insert, update', worker => 'select, insert, update');

-- migrate:down

drop table quota_use;
