-- migrate:up
-- muster: expand

-- A feature for a whole agency or one person, within [starts_at, ends_at), in addition to the catalog's windows.
create table entitlement_grant (
    agency_id text collate "C" not null,
    grant_id text collate "C" not null,
    feature text collate "C" not null,
    subject_ref text collate "C", -- null: every seat of the agency
    mode text not null,
    monthly_quota integer,
    starts_at timestamptz not null,
    ends_at timestamptz, -- null: until it is revoked
    reason text not null,
    granted_at timestamptz not null,
    revoked_at timestamptz,
    primary key (agency_id, grant_id),
    constraint entitlement_grant_half_open check (starts_at < ends_at)
);
create index entitlement_grant_standing on entitlement_grant (agency_id, feature, subject_ref) where revoked_at is null;
select protect('entitlement_grant', api => 'select, insert, update', worker => 'select');

-- migrate:down

drop table entitlement_grant;
