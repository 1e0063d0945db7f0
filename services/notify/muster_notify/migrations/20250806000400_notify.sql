-- migrate:up

-- Who an agency's roles are. Personal data: written from the restricted directory topics, erased by their tombstones.
create table directory (
    agency_id text not null,
    subject_ref text not null,
    role text not null,
    name text,
    email text not null,
    primary key (agency_id, subject_ref)
);
create index directory_role on directory (agency_id, role);
select protect('directory', api => '', worker => 'select, insert, update, delete');

-- Where webhooks go. The agency '*' is the operators' own: an endpoint that gets every agency's events.
create table webhook (
    id text primary key,
    agency_id text not null,
    url text not null,
    event_types text [], -- null: every type but those that must be named
    sealed_secret bytea, -- null once deleted
    state text not null check (state in ('enabled', 'disabled', 'deleted')),
    state_reason text,
    created_at timestamptz not null
);
create index webhook_agency_id on webhook (agency_id, id);
select protect('webhook', api => 'select, insert, update', worker => 'select, update');

-- One row per (event, rule, recipient), written before any attempt.
-- A lane is (agency, recipient). Only its oldest pending delivery has a next_attempt_at; the others wait behind it.
create table delivery (
    id text primary key,
    position bigint generated always as identity,
    agency_id text not null,
    event_id text not null,
    event_type text not null,
    correlation_id text not null,
    rule text not null,
    channel text not null check (channel in ('email', 'webhook')),
    recipient text not null, -- a role, or a webhook
    audience text not null, -- the agency whose recipient it is, or '*' for the operators'
    payload bytea not null,
    state text not null check (state in ('pending', 'delivered', 'failed')),
    attempts bigint not null,
    recorded_at timestamptz not null,
    first_attempt_at timestamptz,
    next_attempt_at timestamptz,
    finished_at timestamptz,
    last_error text,
    unique (event_id, rule, recipient),
    check (next_attempt_at is null or state = 'pending')
);
create index delivery_lane on delivery (agency_id, recipient, position) where state = 'pending';
create index delivery_due on delivery (channel, next_attempt_at, position) where next_attempt_at is not null;
create index delivery_log on delivery (agency_id, position);
select protect('delivery', api => 'select, update', worker => 'select, insert, update');

-- Every attempt, never changed.
create table delivery_attempt (
    delivery_id text not null references delivery (id),
    agency_id text not null,
    number bigint not null,
    attempted_at timestamptz not null,
    milliseconds bigint not null,
    outcome text not null,
    detail text,
    primary key (delivery_id, number)
);
select protect('delivery_attempt', api => 'select', worker => 'select, insert');

-- migrate:down

drop table delivery_attempt, delivery, webhook, directory;
