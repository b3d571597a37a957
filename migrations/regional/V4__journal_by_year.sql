-- Journals by the year in which their show was created, so that a whole year is dropped at the cost of one
-- table. A show's id begins with the time of its creation (UUIDv7), so ranges of ids are ranges of time: the
-- key (show_id, seq) stays whole, no column is added, and a journal never spans two partitions.
--
-- Nothing is copied where all rows are of one year: the table as it is becomes that year's partition. Programs
-- of the version before go on unchanged, since the name and the columns stay.

-- The table is scanned once, to prove that its rows fit; a large one takes longer than a request may.
SET LOCAL statement_timeout = 0;

-- The least id that a show created in `year` (UTC) or later can have.
CREATE FUNCTION journal_year_floor(year integer) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (lpad(to_hex((extract(epoch FROM make_timestamptz(year, 1, 1, 0, 0, 0, 'UTC')) * 1000)::bigint), 12, '0')
            || repeat('0', 20))::uuid;

-- The year in which a show with this id was created.
CREATE FUNCTION journal_year_of(id uuid) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN extract(year FROM to_timestamp(('x' || lpad(left(replace(id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint
                                          / 1000.0) AT TIME ZONE 'UTC')::integer;

-- Makes a year's partition, with what the default partition held of it; false where it is there already.
-- Attaching takes no lock that an append into another year would wait for.
CREATE FUNCTION make_journal_year(year integer) RETURNS boolean
    LANGUAGE plpgsql AS $$
DECLARE
    part text := 'show_journal_y' || year;
    low  uuid := journal_year_floor(year);
    high uuid := journal_year_floor(year + 1);
BEGIN
    -- Several processes start at once.
    PERFORM pg_advisory_xact_lock(7881706654501528834);
    IF EXISTS (SELECT FROM pg_inherits WHERE inhparent = 'show_journal'::regclass AND inhrelid = to_regclass(part)) THEN
        RETURN false;
    END IF;
    LOCK TABLE show_journal_other IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('CREATE TABLE %I (LIKE show_journal INCLUDING ALL)', part);
    EXECUTE format('WITH moved AS (DELETE FROM show_journal_other WHERE show_id >= %L AND show_id < %L RETURNING *)
                    INSERT INTO %I SELECT * FROM moved', low, high, part);
    EXECUTE format('ALTER TABLE show_journal ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', part, low, high);
    RETURN true;
END $$;

ALTER TABLE show_journal RENAME TO show_journal_before;
ALTER INDEX show_journal_pkey RENAME TO show_journal_before_pkey;

CREATE TABLE show_journal (
    show_id  uuid        NOT NULL,
    seq      bigint      NOT NULL,
    epoch    bigint      NOT NULL,
    session  bigint      NOT NULL,
    attempt  bigint      NOT NULL,
    at       timestamptz NOT NULL,
    format   smallint    NOT NULL,
    hash     bytea       NOT NULL,
    events   bytea       NOT NULL,
    PRIMARY KEY (show_id, seq)
) PARTITION BY RANGE (show_id);

-- What no year takes; should be empty.
CREATE TABLE show_journal_other PARTITION OF show_journal DEFAULT;

DO $$
DECLARE
    this  integer := extract(year FROM now() AT TIME ZONE 'UTC');
    first integer := coalesce((SELECT journal_year_of(show_id) FROM show_journal_before ORDER BY show_id LIMIT 1), this);
    last  integer := coalesce((SELECT journal_year_of(show_id) FROM show_journal_before ORDER BY show_id DESC LIMIT 1), this);
BEGIN
    IF first = last AND first BETWEEN 2000 AND this + 1 THEN
        EXECUTE format('ALTER TABLE show_journal_before RENAME TO %I', 'show_journal_y' || first);
        EXECUTE format('ALTER INDEX show_journal_before_pkey RENAME TO %I', 'show_journal_y' || first || '_pkey');
        EXECUTE format('ALTER TABLE show_journal ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                       'show_journal_y' || first, journal_year_floor(first), journal_year_floor(first + 1));
    ELSE
        -- Ids from outside these years were made by no clock that was right; they go to the default partition.
        FOR year IN greatest(first, 2000) .. least(last, this + 1) LOOP
            PERFORM make_journal_year(year);
        END LOOP;
        INSERT INTO show_journal SELECT * FROM show_journal_before;
        DROP TABLE show_journal_before;
    END IF;
    FOR year IN this .. this + 2 LOOP
        PERFORM make_journal_year(year);
    END LOOP;
END $$;

-- What the reconciler looks for among all that ever was.
CREATE INDEX hall_bookings_by_end ON hall_bookings (upper(during));
