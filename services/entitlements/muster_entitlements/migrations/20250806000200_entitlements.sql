-- migrate:up

-- An agency's pool of seats, made by its first enrollment and taken over by a later one.
create table pool (
    agency_id text collate "C" primary key,
    enrollment_id text not null,
    starts_at timestamptz not null,
    ends_at timestamptz not null, -- exclusive
    suspended boolean not null default false,
    withdrawn_at timestamptz,
    ended boolean not null default false, -- billing says that the term was completed and not renewed
    cap integer not null,
    in_use integer not null default 0,
    limit_met boolean not null default false, -- SeatLimitReached was published, and no seat has become free since
    revision bigint not null default 1, -- grows with every change of the agency's entitlements
    constraint pool_in_use_within_cap check (in_use between 0 and cap),
    constraint pool_term_half_open check (starts_at <= ends_at)
);
select protect('pool', api => 'select, update', worker => 'select, insert, update');

-- What billing has reported about each term. It may arrive before the enrollment that the term belongs to.
create table term (
    agency_id text collate "C" not null,
    term_id text collate "C" not null,
    enrollment_id text not null,
    renewed_to timestamptz, -- the end under an accepted renewal
    ended boolean not null default false, -- completed and not renewed
    primary key (agency_id, term_id)
);
select protect('term', api => 'select', worker => 'select, insert, update');

-- A feature is open to the seats of one enrollment within [starts_at, ends_at).
create table feature_window (
    agency_id text collate "C" not null,
    enrollment_id text collate "C" not null,
    feature text collate "C" not null,
    window_id text not null,
    trial boolean not null, -- else it lasts as long as the term
    mode text not null,
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    mode_after text not null,
    monthly_quota_after integer,
    primary key (agency_id, enrollment_id, feature),
    constraint feature_window_half_open check (starts_at <= ends_at)
);
select protect('feature_window', api => 'select', worker => 'select, insert, update');

-- Seats, held and revoked. A seat's id grows with time, so its index is written at its end only;
-- the one index in random order is that of the held seats' subjects, which no rule can do without.
create table seat (
    agency_id text collate "C" not null,
    seat_id text collate "C" not null,
    subject_ref text collate "C" not null,
    state text collate "C" not null check (state in ('assigned', 'active', 'revoked')),
    assigned_at timestamptz not null,
    activated_at timestamptz,
    revoked_at timestamptz,
    primary key (agency_id, seat_id)
);
create unique index seat_held_by_subject on seat (agency_id, subject_ref) where state <> 'revoked';
select protect('seat', api => 'select, insert, update', worker => 'select, insert, update');

-- Who holds a seat: personal data, kept apart and deleted when the seat is revoked.
create table holder (
    agency_id text collate "C" not null,
    seat_id text collate "C" not null,
    email text not null,
    name text,
    primary key (agency_id, seat_id)
);
select protect('holder', api => 'select, insert, delete', worker => 'select, insert, delete');

-- migrate:down

drop table holder, seat, feature_window, term, pool;
