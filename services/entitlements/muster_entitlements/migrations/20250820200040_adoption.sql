-- migrate:up
-- muster: expand

-- The days of the period, in the agency's time zone, on which the person used the feature: the day's number since the
-- year 1, modulo 63, is its bit. `fresh_days` are the days that the last addition added first.
alter table usage_sum
add column days bigint not null default 0,
add column fresh_days bigint not null default 0;

-- The features that the seat's holder has used while they hold it.
alter table seat add column used_features text [];

-- How many people of an agency used a feature on a day, and within the 7 and the 28 days up to it. A use counts on all
-- of these days at once, so there are rows for future days; nothing is ever subtracted.
create table adoption_day (
    agency_id text collate "C" not null,
    feature text collate "C" not null,
    day date not null, -- in the agency's time zone
    active integer not null default 0,
    active_7_days integer not null default 0,
    active_28_days integer not null default 0,
    first_uses integer not null default 0, -- people who used it for the first time with their seat
    first_use_days integer not null default 0, -- how many days they had had their seats by then, in total
    primary key (agency_id, feature, day)
);
select protect('adoption_day', api => 'select, insert, update', worker => 'select, insert, update');

-- How many holders of a seat of the pool's generation have used a feature with it.
create table adopter (
    agency_id text collate "C" not null,
    feature text collate "C" not null,
    generation integer not null,
    people integer not null,
    primary key (agency_id, feature, generation)
);
select protect('adopter', api => 'select, insert, update', worker => 'select, insert, update');

-- Anyone who loses a seat, in whatever way, is no longer an adopter.
create function forget_used_features() returns trigger
language plpgsql
as $$
begin
    update adopter
    set people = people - 1
    where agency_id = old.agency_id and generation = old.generation and feature = any(old.used_features);
    new.used_features := null;
    return new;
end $$;
create trigger forget_used_features
before update of state, subject_ref on seat
for each row
when (
    old.used_features is not null
    and ((new.state = 'revoked' and old.state <> 'revoked') or new.subject_ref <> old.subject_ref)
)
execute function forget_used_features();

-- migrate:down

drop trigger forget_used_features on seat;
drop function forget_used_features();
drop table adopter, adoption_day;
alter table seat drop column used_features;
alter table usage_sum drop column days, drop column fresh_days;
