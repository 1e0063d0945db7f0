-- migrate:up
-- muster: expand

alter table enrollment add column continues text [] not null default '{}'; -- agencies whose used trials count as its own

-- migrate:down

alter table enrollment drop column continues;
