-- migrate:up

-- The enrollment in which a file was sent; null, of files from before this column, stands for the one at hand.
alter table operation add column enrollment_id text;

-- migrate:down

alter table operation drop column enrollment_id;
