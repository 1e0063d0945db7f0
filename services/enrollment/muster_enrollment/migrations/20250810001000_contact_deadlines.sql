-- migrate:up

-- A contact's erasure now has a deadline of the contact, no longer one of the enrollment that ended.
-- Contacts that nothing needs get one: those of an agency that has left; those replaced in an agency that is still
-- live; and signers without a live enrollment, who wait 90 days for one.
-- Row-level security is forced, and would hide every row from the owner.
alter table contact no force row level security;
alter table data_use_acceptance no force row level security;
alter table enrollment no force row level security;
alter table deadline no force row level security;
insert into deadline (kind, agency_id, subject, due_at)
select 'contact-erasure', c.agency_id, c.contact_ref,
    case
        when e.agency_id is null or c.recorded_at > e.closed_at then c.recorded_at + interval '90 days'
        when e.closed_at is not null then coalesce(d.due_at, e.closed_at + interval '1 day')
        else needed.since
    end
from contact as c
left join lateral (
    select * from enrollment where agency_id = c.agency_id order by number desc limit 1
) as e on true
left join lateral (
    select * from data_use_acceptance where agency_id = c.agency_id order by accepted_at desc, acceptance_id desc limit 1
) as a on true
left join deadline as d
    on d.kind = 'contact-erasure' and d.agency_id = c.agency_id and d.subject = e.enrollment_id
cross join lateral (
    select
        case c.role when 'signer' then a.signer_ref else e.contact_ref end as contact_ref,
        case c.role when 'signer' then a.accepted_at else e.submitted_at end as since
) as needed
where
    c.erased_at is null
    and (e.agency_id is null or e.closed_at is not null or c.contact_ref <> needed.contact_ref);
delete from deadline
where kind = 'contact-erasure' and subject not in (select contact_ref from contact);
alter table deadline force row level security;
alter table enrollment force row level security;
alter table data_use_acceptance force row level security;
alter table contact force row level security;

-- migrate:down

alter table enrollment no force row level security;
alter table deadline no force row level security;
insert into deadline (kind, agency_id, subject, due_at)
select 'contact-erasure', e.agency_id, e.enrollment_id, max(d.due_at)
from deadline as d
inner join enrollment as e on e.agency_id = d.agency_id
where
    d.kind = 'contact-erasure' and e.closed_at is not null
    and e.number = (select max(number) from enrollment where agency_id = e.agency_id)
group by e.agency_id, e.enrollment_id;
delete from deadline
where kind = 'contact-erasure' and subject not in (select enrollment_id from enrollment);
alter table deadline force row level security;
alter table enrollment force row level security;
