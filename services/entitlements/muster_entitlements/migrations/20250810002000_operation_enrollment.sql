-- migrate:up

-- The enrollment in which a file was sent; null, for files from before this column, stands for the current one.
alter table operation add column enrollment_id text;

-- migrate:down

alter table operation drop column enrollment_id;
