-- migrate:up

-- While a secret is being rotated, the previous one signs as well, until previous_secret_until.
alter table webhook add column previous_secret bytea;
alter table webhook add column previous_secret_until timestamptz;
alter table webhook add constraint webhook_previous_secret
check ((previous_secret is null) = (previous_secret_until is null)) not valid;

-- migrate:down

alter table webhook drop constraint webhook_previous_secret;
alter table webhook drop column previous_secret_until;
alter table webhook drop column previous_secret;
