-- migrate:up
-- muster: expand

-- The part of the agency that a seat is for, as written, and without its case: what a search compares must be in
-- an index, and row-level security lets no index use lower(). A seat keeps its unit, so its history needs none.
alter table seat add column unit text;
alter table seat add column unit_key text collate "C";

-- The column of a file that has the unit. It is not in `columns`: the code of the earlier release reads four of those.
alter table operation add column unit_column integer;

-- migrate:down

alter table operation drop column unit_column;
alter table seat drop column unit_key, drop column unit;
