-- migrate:up

-- When an endpoint was last disabled; kept when it is enabled again: a replay begins there.
alter table webhook add column disabled_at timestamptz;

-- A retry or a replay begins a new round: the schedule of attempts counts from there, and the first attempt stays known.
alter table delivery add column round_attempts bigint not null default 0;
alter table delivery add column round_started_at timestamptz;

-- Row-level security is forced, and would hide every row from the owner.
alter table delivery no force row level security;
update delivery set round_attempts = attempts, round_started_at = first_attempt_at where state = 'pending';
alter table delivery force row level security;

-- Failed deliveries are sent to an endpoint again, in steps: the place is that of the last one sent again.
create table replay (
    id text primary key,
    agency_id text not null,
    webhook_id text not null references webhook (id),
    since timestamptz not null,
    state text not null check (state in ('running', 'done', 'stopped')),
    replayed bigint not null default 0,
    place_agency_id text not null default '',
    place_position bigint not null default 0,
    requested_at timestamptz not null,
    finished_at timestamptz
);
create unique index replay_running on replay (webhook_id) where state = 'running';
create index replay_webhook_id on replay (webhook_id);
select protect('replay', api => 'select, insert', worker => 'select, update');

-- migrate:down

drop table replay;
alter table delivery drop column round_started_at;
alter table delivery drop column round_attempts;
alter table webhook drop column disabled_at;
