-- migrate:up
-- muster: expand

-- Since when a row has been as it is; null: since before its history was kept.
alter table pool add column recorded_from timestamptz;
alter table feature_window add column recorded_from timestamptz;

-- What a pool, or a window, was before each of its changes, within [recorded_from, recorded_until). A column that the
-- table gets later is added here too, at the end.
create table pool_history (
    recorded_until timestamptz not null,
    like pool,
    primary key (agency_id, recorded_until)
);
create table feature_window_history (
    recorded_until timestamptz not null,
    like feature_window,
    primary key (agency_id, enrollment_id, feature, recorded_until)
);
select protect('pool_history', api => 'select, insert', worker => 'select, insert');
select protect('feature_window_history', api => 'select, insert', worker => 'select, insert');

-- Date a row by the instant of this transaction, which lock_agencies has stored, and keep what it was until then. If
-- several changes share an instant, the first one keeps it.
create function keep_pool_version() returns trigger
language plpgsql volatile
as $$
declare
    instant timestamptz := (select latest from agency_instant where agency_id = new.agency_id);
begin
    if instant is null then
        return new;
    end if;
    if tg_op = 'UPDATE' then
        if old.recorded_from >= instant then
            return new;
        end if;
        insert into pool_history select instant, old.*;
    end if;
    new.recorded_from := instant;
    return new;
end $$;
create trigger keep_pool_version before insert or update on pool for each row execute function keep_pool_version();

create function keep_feature_window_version() returns trigger
language plpgsql volatile
as $$
declare
    instant timestamptz := (select latest from agency_instant where agency_id = new.agency_id);
begin
    if instant is null then
        return new;
    end if;
    if tg_op = 'UPDATE' then
        if old.recorded_from >= instant then
            return new;
        end if;
        insert into feature_window_history select instant, old.*;
    end if;
    new.recorded_from := instant;
    return new;
end $$;
create trigger keep_feature_window_version before insert or update on feature_window
for each row execute function keep_feature_window_version();

-- migrate:down

drop trigger keep_feature_window_version on feature_window;
drop trigger keep_pool_version on pool;
drop function keep_feature_window_version();
drop function keep_pool_version();
drop table feature_window_history, pool_history;
alter table feature_window drop column recorded_from;
alter table pool drop column recorded_from;
