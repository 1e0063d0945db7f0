-- migrate:up
-- muster: expand

-- How much of a feature's trial was used by the agencies that an agency continues, beyond what it had used itself: it
-- counts as used by the agency.
create table continued_trial (
    agency_id text collate "C" not null,
    feature text collate "C" not null,
    used interval not null,
    primary key (agency_id, feature)
);
select protect('continued_trial', api => 'select', worker => 'select, insert, update');

-- migrate:down

drop table continued_trial;
