-- migrate:up
-- muster: expand

-- Take an agency's lock as lock_agencies does, and return all that a use of a feature by one of its people depends on,
-- besides counted use. It is read once the lock is held, and so sees what the previous transaction stored.
create function lock_for_use(
    agencies text[], instant timestamptz, moving boolean, of_subject text, of_feature text,
    out latest timestamptz, out entered timestamptz, out locked timestamptz,
    out p pool, out w feature_window, out s seat, out grants json, out unspent boolean
)
language plpgsql volatile
as $$
begin
    select l.latest, l.entered, l.locked into latest, entered, locked from lock_agencies(agencies, instant, moving) as l;
    select * into p from pool where agency_id = agencies[1];
    select * into w
    from feature_window as f
    where f.agency_id = p.agency_id and f.enrollment_id = p.enrollment_id and f.feature = of_feature;
    select * into s
    from seat as t
    where
        t.agency_id = p.agency_id and t.subject_ref = of_subject and t.state <> 'revoked'
        and t.generation = p.generation;
    select
        json_agg(json_build_object(
            'grant_id', g.grant_id, 'agency_id', g.agency_id, 'feature', g.feature, 'subject_ref', g.subject_ref,
            'mode', g.mode, 'monthly_quota', g.monthly_quota, 'starts_at', g.starts_at, 'ends_at', g.ends_at,
            'reason', g.reason
        ))
    into grants
    from entitlement_grant as g
    where
        g.agency_id = agencies[1] and g.feature = of_feature and (g.subject_ref = of_subject or g.subject_ref is null)
        and g.revoked_at is null and (g.ends_at is null or g.ends_at > latest);
    unspent := exists (
        select
        from quota_grant as q
        where
            q.agency_id = agencies[1] and q.feature = of_feature and q.subject_ref in (of_subject, '')
            and q.spent < q.amount
    );
end $$;

-- migrate:down

drop function lock_for_use(text[], timestamptz, boolean, text, text);
