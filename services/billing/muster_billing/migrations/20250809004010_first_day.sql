-- migrate:up

-- The civil day on which a term starts, in the program's time zone: it sets fiscal year and period of performance.
alter table term add column first_day date;

-- Row-level security is forced, and would hide every row from the owner.
alter table term no force row level security;
update term set first_day = (starts_at at time zone 'America/New_York')::date;
-- An invoice that is issued keeps the number and the fiscal year that it was given.
alter table invoice no force row level security;
update invoice as i
set fiscal_year = extract(year from t.first_day + interval '3 months')
from term as t
where t.id = i.term_id and i.state = 'draft';
alter table invoice force row level security;
alter table term force row level security;
-- squawk-ignore adding-not-nullable-field
alter table term alter column first_day set not null;

-- migrate:down

alter table term drop column first_day;
