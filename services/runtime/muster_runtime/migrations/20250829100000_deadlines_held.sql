-- migrate:up
-- muster: expand

-- After a restore, deadlines would act on facts that are out of date. So raising the epoch holds them all, from this
-- instant until an operator releases them.
alter table epoch add column deadlines_held_since timestamptz
constraint epoch_deadlines_held_since_readable
check (deadlines_held_since is null or readable_instant(deadlines_held_since) is not null);

-- migrate:down

alter table epoch drop column deadlines_held_since;
