-- migrate:up

-- The register of federal agencies: reference data of the program, the same for every tenant,
-- so it has no row-level security. The lock of '*' admits one writer at a time.
create table agency (
    id text primary key check (id ~ '^[A-Z][A-Z0-9-]{1,19}$'),
    name text not null,
    parent text references agency (id) check (parent <> id),
    treasury_code text,
    headcount bigint check (headcount >= 0), -- null if unknown
    branch text not null check (branch in ('executive', 'legislative', 'judicial'))
);
create index agency_parent on agency (parent);

create table agency_domain (
    domain text primary key check (domain ~ '\.(gov|mil)$'),
    holder text not null references agency (id)
);
create index agency_domain_holder on agency_domain (holder);

-- Who speaks or signs for an agency: the only personal data of this service.
create table contact (
    contact_ref text primary key,
    agency_id text not null references agency (id),
    role text not null check (role in ('administrator', 'signer')),
    name text not null,
    email text not null,
    recorded_at timestamptz not null
);
create index contact_agency_id on contact (agency_id);
select protect('contact', api => 'select, insert', worker => 'select');

-- An agency's enrollments, numbered from 1; at most one of them is live.
create table enrollment (
    enrollment_id text primary key,
    agency_id text not null references agency (id),
    number bigint not null check (number >= 1),
    state text not null check (state in ('submitted', 'active', 'suspended', 'withdrawn', 'ended')),
    seats bigint not null check (seats >= 1),
    requested_start timestamptz not null,
    contact_ref text not null references contact (contact_ref),
    submitted_at timestamptz not null,
    changed_at timestamptz not null,
    starts_at timestamptz,
    ends_at timestamptz,
    suspension_reason text,
    closed_at timestamptz,
    closing_reason text,
    version bigint not null,
    unique (agency_id, number),
    check ((starts_at is null) = (ends_at is null)),
    check (ends_at > starts_at),
    check (starts_at is not null or state not in ('active', 'suspended', 'ended')),
    check ((suspension_reason is not null) = (state = 'suspended')),
    check ((closed_at is not null) = (state in ('withdrawn', 'ended'))),
    check ((closing_reason is null) = (closed_at is null))
);
create unique index enrollment_live on enrollment (agency_id) where closed_at is null;
create index enrollment_contact_ref on enrollment (contact_ref);
select protect('enrollment', api => 'select, insert, update', worker => 'select, insert, update');

-- Authorizations to use (ATU) the program's product, in force within [valid_from, valid_until) until revoked.
create table atu (
    authorization_id text primary key,
    agency_id text not null references agency (id),
    number text not null,
    issuer text not null,
    product text not null,
    valid_from timestamptz not null,
    valid_until timestamptz not null,
    recorded_at timestamptz not null,
    revoked_at timestamptz,
    revocation_reason text,
    unique (agency_id, number),
    check (valid_until > valid_from),
    check ((revocation_reason is null) = (revoked_at is null))
);
select protect('atu', api => 'select, insert, update', worker => 'select');

-- The versions of the data-use terms that an agency is bound by, each with its signer and evidence.
create table data_use_acceptance (
    acceptance_id text primary key,
    agency_id text not null references agency (id),
    terms_version text not null,
    signer_ref text not null references contact (contact_ref),
    evidence_sha256 text not null check (evidence_sha256 ~ '^[0-9a-f]{64}$'),
    accepted_at timestamptz not null,
    unique (agency_id, terms_version)
);
create index data_use_acceptance_signer_ref on data_use_acceptance (signer_ref);
select protect('data_use_acceptance', api => 'select, insert', worker => 'select');

do $$
declare
    api text := current_schema() || '_api';
    worker text := current_schema() || '_worker';
begin
    execute format('grant select, insert, update on table agency to %I', api);
    execute format('grant select, insert, delete on table agency_domain to %I', api);
    execute format('grant select on table agency, agency_domain to %I', worker);
end $$;

-- migrate:down

drop table data_use_acceptance, atu, enrollment, contact, agency_domain, agency;
