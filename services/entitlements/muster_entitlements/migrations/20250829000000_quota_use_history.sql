-- migrate:up
-- muster: expand

-- Row-level security is forced, and would hide every row from the owner. This takes all locks in the order in which
-- others take them: every command writes agency_instant first, and a statement that reads the other two begins with
-- quota_use. So this waits for those that are at work, and cannot deadlock with them.
alter table agency_instant no force row level security;
alter table quota_use no force row level security;
alter table quota_grant no force row level security;

-- How much of a quota a person, or an agency, had used in a period, each time that was published, and since when that
-- was known. A used-up quota is always published, so this says when it was used up.
create table quota_use_history (
    agency_id text collate "C" not null,
    feature text collate "C" not null,
    subject_ref text collate "C" not null, -- empty: the whole agency
    starts_at timestamptz not null, -- of the period
    ends_at timestamptz not null, -- exclusive
    charged bigint not null, -- the uses that no grant paid for; they never decrease within a period
    recorded_from timestamptz not null,
    primary key (agency_id, feature, subject_ref, starts_at, charged, ends_at)
);
create index quota_use_history_by_end on quota_use_history (ends_at);
select protect('quota_use_history', api => 'select, insert', worker => 'select, insert, delete');

-- Keep what is published, dated by the instant of this transaction, which lock_agencies has stored.
create function keep_quota_use() returns trigger
language plpgsql volatile
as $$
begin
    insert into quota_use_history (agency_id, feature, subject_ref, starts_at, ends_at, charged, recorded_from)
    select new.agency_id, new.feature, new.subject_ref, new.starts_at, new.ends_at, new.charged, latest
    from agency_instant
    where agency_id = new.agency_id
    on conflict do nothing;
    return null;
end $$;
create trigger keep_quota_use after insert or update on quota_use for each row
when (new.charged > 0)
execute function keep_quota_use();

-- Since when a grant of further uses is spent; null: something is left.
alter table quota_grant add column spent_at timestamptz;

create function date_spent_grant() returns trigger
language plpgsql volatile
as $$
begin
    new.spent_at := (select latest from agency_instant where agency_id = new.agency_id);
    return new;
end $$;
create trigger date_spent_grant before update on quota_grant for each row
when (old.spent < old.amount and new.spent = new.amount)
execute function date_spent_grant();

-- What is used up and spent already has been so at least since the agency's latest instant.
alter table quota_use_history no force row level security;
insert into quota_use_history (agency_id, feature, subject_ref, starts_at, ends_at, charged, recorded_from)
select u.agency_id, u.feature, u.subject_ref, u.starts_at, u.ends_at, u.charged, i.latest
from quota_use as u
join agency_instant as i using (agency_id)
where u.charged > 0 and u.ends_at > i.latest;
update quota_grant as g
set spent_at = i.latest
from agency_instant as i
where g.agency_id = i.agency_id and g.spent = g.amount;
alter table quota_use force row level security;
alter table quota_use_history force row level security;
alter table quota_grant force row level security;
alter table agency_instant force row level security;

-- migrate:down

drop trigger date_spent_grant on quota_grant;
drop function date_spent_grant();
alter table quota_grant drop column spent_at;
drop trigger keep_quota_use on quota_use;
drop function keep_quota_use();
drop table quota_use_history;
