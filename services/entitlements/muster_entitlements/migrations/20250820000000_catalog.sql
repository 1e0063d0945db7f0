-- migrate:up
-- muster: expand

-- Versions of the feature catalog. Version 1 is the package's features.toml, and has no row.
create table catalog_version (
    agency_id text collate "C" not null default '*' check (agency_id = '*'), -- the program's
    number integer primary key check (number > 1),
    state text not null check (state in ('draft', 'published')),
    rule text not null check (rule in ('now', 'next-term', 'new-agencies')), -- how it reaches enrolled agencies
    features jsonb not null,
    revision integer not null default 1, -- grows with each edit of the draft
    created_at timestamptz not null,
    published_at timestamptz,
    constraint catalog_version_published check ((state = 'published') = (published_at is not null))
);
create unique index catalog_version_draft on catalog_version (state) where state = 'draft';
select protect('catalog_version', api => 'select, insert, update', worker => 'select');
do $$
begin
    execute format(
        'create policy everyone_reads_what_is_published on catalog_version for select to %I using (state = ''published'')', current_schema() || '_api');
end $$;

-- The version that an agency's windows follow, and the one that they will follow from its next term on. An agency
-- without a row has version 1.
create table agency_catalog (
    agency_id text collate "C" primary key,
    number integer not null,
    next_number integer check (next_number > number)
);
select protect('agency_catalog', api => 'select', worker => 'select, insert, update');

alter table feature_window add column catalog_number integer not null default 1; -- the version whose terms it has
alter table feature_window add column renewable boolean not null default true; -- a renewal extends it, if it lasts as long as the term
-- How long the trials that this window replaced were open.
alter table feature_window add column trial_before interval not null default '0';

-- migrate:down

alter table feature_window drop column trial_before, drop column renewable, drop column catalog_number;
drop table agency_catalog, catalog_version;
