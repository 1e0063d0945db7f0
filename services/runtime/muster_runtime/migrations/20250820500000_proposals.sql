-- migrate:up
-- muster: expand

-- Requests that wait for a second person, who approves or rejects them. The body is what the first person sent; it is
-- deleted with the decision, or when the proposal expires.
create table proposal (
    proposal_id text collate "C" primary key,
    agency_id text collate "C" not null,
    state text not null check (state in ('pending', 'approved', 'rejected', 'expired')),
    route text not null,
    method text not null,
    path text not null,
    query text not null,
    content_type text,
    if_match text,
    body bytea,
    revision bigint not null, -- of what the request changes, when it was proposed
    proposed_by text not null,
    proposed_at timestamptz not null,
    expires_at timestamptz not null,
    decided_by text,
    decided_at timestamptz,
    reason text,
    constraint proposal_body_while_pending check (state = 'pending' or body is null)
);
select protect('proposal', api => 'select, insert, update', worker => 'select, update');

-- migrate:down

drop table proposal;
