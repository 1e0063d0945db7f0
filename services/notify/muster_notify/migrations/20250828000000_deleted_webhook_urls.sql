-- migrate:up
-- muster: expand
-- muster: optional

-- A deleted endpoint keeps its row, but not its URL, whose path may contain the receiver's secret. Earlier versions kept it.
-- Row-level security is forced, and would hide every row from the owner.
alter table webhook no force row level security;
update webhook set url = '' where state = 'deleted' and url <> '';
alter table webhook force row level security;

-- migrate:down

-- The URLs are gone for good.
