-- How often somebody has tried of late, for all processes of this service.

-- By what was tried and from where, as a keyed digest: it names nobody. Losing it in a crash costs nothing but the
-- count, so it needs no write-ahead log.
CREATE UNLOGGED TABLE attempts (
    pair    bytea PRIMARY KEY,
    count   integer NOT NULL,
    last_at timestamptz NOT NULL
);
