-- migrate:up
-- muster: expand

alter table enrollment add column time_zone text; -- the agency's, as the IANA database names it; null for UTC

-- migrate:down

alter table enrollment drop column time_zone;
