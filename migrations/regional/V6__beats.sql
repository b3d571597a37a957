-- One row for each process of the region, which it writes twice a second: only a process whose Postgres takes
-- writes tells the registry that the region is well. Rows of processes that are gone may be deleted at any time.

CREATE TABLE beats (
    process text PRIMARY KEY,       -- where gateways reach it
    beats bigint NOT NULL,
    beaten_at timestamptz NOT NULL
) WITH (fillfactor = 10);
