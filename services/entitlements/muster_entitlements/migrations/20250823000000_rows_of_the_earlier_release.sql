-- migrate:up
-- muster: expand

-- Row-level security is forced, and would hide every row from the owner.
alter table agency_catalog no force row level security;
alter table deadline no force row level security;
alter table feature_window no force row level security;
alter table feature_window_history no force row level security;
alter table pool no force row level security;

-- The earlier release does not set next_after, even when it records a version. The deadline says when a version comes
-- that is already waiting; where none waits, the deadline is for something else that comes with a term.
create function add_next_after() returns trigger
language plpgsql
as $$
begin
    new.next_after := coalesce(
        (
            select due_at from deadline
            where
                kind = 'catalog-next-term' and agency_id = new.agency_id and subject = new.agency_id
                and tg_op = 'UPDATE' and old.next_number is not null
        ),
        (select ends_at from pool where agency_id = new.agency_id)
    );
    return new;
end $$;
create trigger add_next_after before insert or update on agency_catalog for each row
when (new.next_number is not null and new.next_after is null) execute function add_next_after();
update agency_catalog set next_after = null where next_number is not null and next_after is null; -- the trigger adds it

-- Nor does it set start_corrected: a decision moves the start of a window, and a version replaces the window.
create function keep_start_corrected() returns trigger
language plpgsql
as $$
begin
    new.start_corrected := new.window_id = old.window_id;
    return new;
end $$;
create trigger keep_start_corrected before update on feature_window for each row
when (new.window_id <> old.window_id or new.starts_at <> old.starts_at) execute function keep_start_corrected();
alter table feature_window disable trigger keep_feature_window_version; -- no answer shows it
update feature_window set start_corrected = false where start_corrected and revision = 1; -- it replaced another one
update feature_window as w
set start_corrected = true
where
    w.anchor = 'program' and not w.start_corrected
    and exists (
        select from feature_window_history as h
        where
            (h.agency_id, h.enrollment_id, h.feature, h.window_id)
            = (w.agency_id, w.enrollment_id, w.feature, w.window_id)
            and h.starts_at <> w.starts_at
    );
alter table feature_window enable trigger keep_feature_window_version;

-- The seats' trials of a removed feature end with its window at the latest: their deadlines may be later.
update deadline as d
set due_at = w.due_at
from (
    select agency_id, window_id, 'seat-trial-ends' as kind, ends_at as due_at
    from feature_window
    where seat_days is not null and not renewable
    union all
    select w.agency_id, w.window_id, 'seat-trials-ending-soon', min(n.due_at)
    from feature_window as w
    cross join lateral (
        select date_trunc('day', w.ends_at, 'UTC') - days * interval '24 hours' as due_at
        from unnest(w.ends_soon_days) as days
    ) as n
    where w.seat_days is not null and not w.renewable and n.due_at > now()
    group by w.agency_id, w.window_id
) as w
where d.kind = w.kind and d.agency_id = w.agency_id and d.subject = w.window_id and d.due_at > w.due_at;

-- Months that roll from a window's start now follow the agency's clocks, and copies still have the use of the earlier
-- months. What they already have is not published again. Not at once: code of the earlier release would find nothing to
-- publish, and keeps counting its own way. The subject is the enrollment: that code may move the agency's deadline.
insert into deadline (kind, agency_id, subject, due_at)
select 'quota-uses-told', agency_id, enrollment_id, now() + interval '1 day'
from pool
where time_zone is not null and withdrawn_at is null and not ended;

alter table agency_catalog force row level security;
alter table deadline force row level security;
alter table feature_window force row level security;
alter table feature_window_history force row level security;
alter table pool force row level security;

-- migrate:down

drop trigger keep_start_corrected on feature_window;
drop function keep_start_corrected();
drop trigger add_next_after on agency_catalog;
drop function add_next_after();
