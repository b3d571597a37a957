-- What is to be told to the audit log, which `global` keeps. A row is written in the transaction of the change that
-- it tells of, or with the read models that are folded from it, and goes once `global` has it.
CREATE TABLE audit_outbox (
    id          uuid PRIMARY KEY,
    at          timestamptz NOT NULL,
    actor       uuid,
    action      text NOT NULL,
    target      text NOT NULL,
    -- JSON as text: what Postgres would not take as JSON must not hold up the rows that are written with it.
    before      text,
    after       text,
    address     text NOT NULL,
    region      text NOT NULL,
    -- An order to the registry is told when its outcome is known, or at this time.
    due_at      timestamptz NOT NULL DEFAULT now(),
    -- `global` will never take it: kept for people to look at.
    refused_at  timestamptz
);
CREATE INDEX audit_outbox_due ON audit_outbox (due_at) WHERE refused_at IS NULL;
