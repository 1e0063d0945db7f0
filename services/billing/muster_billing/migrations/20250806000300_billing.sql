-- migrate:up

-- A one-year term of an enrollment: one per number, however often its event arrives.
create table term (
    id text primary key,
    agency_id text not null,
    enrollment_id text not null,
    number bigint not null check (number >= 1),
    state text not null check (state in ('scheduled', 'running', 'ended', 'cancelled')),
    starts_at timestamptz not null,
    ends_at timestamptz not null check (ends_at > starts_at),
    price_minor bigint not null check (price_minor > 0),
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    ended_at timestamptz,
    end_reason text,
    unique (agency_id, enrollment_id, number)
);
create unique index term_live on term (agency_id) where state in ('scheduled', 'running');
select protect('term', api => 'select', worker => 'select, insert, update');

-- The invoice of a term: exactly one. Its number is the agency, the fiscal year and the ordinal, given when it is issued.
create table invoice (
    id text primary key,
    agency_id text not null,
    term_id text not null unique references term,
    state text not null check (state in ('draft', 'issued', 'paid', 'void')),
    fiscal_year bigint not null,
    ordinal bigint,
    amount_minor bigint not null check (amount_minor > 0),
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    issued_at timestamptz,
    due_at timestamptz,
    overdue_level bigint not null default 0,
    paid_at timestamptz,
    voided_at timestamptz,
    void_reason text,
    unique (agency_id, fiscal_year, ordinal),
    check ((issued_at is null) = (ordinal is null)),
    check ((issued_at is null) = (due_at is null)),
    check (state not in ('issued', 'paid') or issued_at is not null),
    check (state <> 'draft' or issued_at is null),
    check ((state = 'paid') = (paid_at is not null)),
    check ((state = 'void') = (voided_at is not null))
);
select protect('invoice', api => 'select, update', worker => 'select, insert, update');

-- An invoice is paid once, in full.
create table payment (
    id text primary key,
    agency_id text not null,
    invoice_id text not null unique references invoice,
    amount_minor bigint not null check (amount_minor > 0),
    currency text not null,
    reference text not null,
    paid_at timestamptz not null
);
select protect('payment', api => 'select, insert', worker => 'select');

-- The offer of a further term, one per term.
create table renewal (
    id text primary key,
    agency_id text not null,
    term_id text not null unique references term,
    state text not null check (state in ('offered', 'accepted', 'declined', 'lapsed', 'withdrawn')),
    price_minor bigint not null check (price_minor > 0),
    currency text not null,
    next_starts_at timestamptz not null,
    next_ends_at timestamptz not null check (next_ends_at > next_starts_at),
    offered_at timestamptz not null,
    decided_at timestamptz
);
create index renewal_agency_id on renewal (agency_id, id);
select protect('renewal', api => 'select, update', worker => 'select, insert, update');

-- The ledger is append-only. Each kind of transaction is booked once per invoice.
create table ledger_transaction (
    id bigint generated always as identity primary key,
    agency_id text not null,
    invoice_id text not null references invoice,
    kind text not null check (kind in ('invoice_issued', 'payment_received', 'invoice_voided')),
    recorded_at timestamptz not null,
    unique (invoice_id, kind)
);
create index ledger_transaction_agency_id on ledger_transaction (agency_id, id);
select protect('ledger_transaction', api => 'select, insert', worker => 'select, insert');

create table ledger_entry (
    transaction_id bigint not null references ledger_transaction,
    account text not null check (account in ('accounts_receivable', 'revenue', 'cash')),
    agency_id text not null,
    amount_minor bigint not null check (amount_minor <> 0),
    currency text not null,
    primary key (transaction_id, account)
);
select protect('ledger_entry', api => 'select, insert', worker => 'select, insert');

-- Debits are positive and credits negative: the entries of a transaction sum to zero when it commits.
create function refuse_unbalanced() returns trigger
language plpgsql
as $$
begin
    if exists (
        select
        from ledger_entry
        where transaction_id = new.transaction_id
        group by currency
        having sum(amount_minor) <> 0
    ) then
        raise exception 'ledger transaction % does not sum to zero', new.transaction_id
            using errcode = 'check_violation';
    end if;
    return null;
end $$;

create constraint trigger ledger_entry_balanced
after insert on ledger_entry
deferrable initially deferred
for each row execute function refuse_unbalanced();

-- migrate:down

drop table ledger_entry, ledger_transaction, renewal, payment, invoice, term;
drop function refuse_unbalanced;
