-- A region's own cinemas and halls, and what it last heard from `global`: authority and catalogue. With
-- these a region starts and sells while `global` is down.

-- Titles are found in spite of typos. Trusted: the database's owner may create it.
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- ── The feed ──────────────────────────────────────────────────────────────────────────────────────────

-- One row. Whatever an update brings is committed together with its position, so that what is here is
-- always exactly the feed up to `position`.
CREATE TABLE feed_state (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    position    bigint NOT NULL DEFAULT 0,
    policy      jsonb,                                  -- {version, rules, roles}; null: never heard
    jwks        jsonb,                                  -- RFC 7517; null: never heard
    heard_at    timestamptz                             -- of an update or, within half a minute, a heartbeat
);
INSERT INTO feed_state DEFAULT VALUES;

-- Tokens that are void before they expire. Rows go when every token they concern has expired.
CREATE TABLE feed_revocations (
    kind        text NOT NULL CHECK (kind IN ('session', 'user')),
    subject     uuid NOT NULL,
    min_version bigint NOT NULL DEFAULT 0,              -- of a user's tokens; smaller ones are void
    expires_at  bigint NOT NULL,                        -- unix seconds
    PRIMARY KEY (kind, subject)
);
CREATE INDEX feed_revocations_expiry ON feed_revocations (expires_at);

-- ── The catalogue ─────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE movies (
    id           uuid PRIMARY KEY,
    title        text NOT NULL,
    -- The title in lower case without accents, folded by the program: what is searched and sorted by, the
    -- same whatever locale the database has.
    title_key    text COLLATE "C" NOT NULL,
    release_date date,
    runtime_min  integer,
    rating       text,
    genre        text,
    director     text,
    distributor  text,
    cast_names   text[] NOT NULL DEFAULT '{}',
    synopsis     text,
    version      bigint NOT NULL,
    -- Kept, so that an older message cannot bring the film back.
    deleted      boolean NOT NULL DEFAULT false
);
CREATE INDEX movies_title_words ON movies USING gin (title_key gin_trgm_ops) WHERE NOT deleted;
CREATE INDEX movies_by_title ON movies (title_key, id) WHERE NOT deleted;
CREATE INDEX movies_by_release ON movies (release_date, id) WHERE NOT deleted;
CREATE INDEX movies_by_genre ON movies (lower(genre)) WHERE NOT deleted;

-- ── Cinemas and halls ─────────────────────────────────────────────────────────────────────────────────

CREATE TABLE cinemas (
    id         uuid PRIMARY KEY,
    name       text NOT NULL,
    name_key   text COLLATE "C" NOT NULL,               -- as movies.title_key
    address    text NOT NULL,
    search_key text COLLATE "C" NOT NULL,               -- name and address, as movies.title_key
    latitude   double precision NOT NULL CHECK (latitude BETWEEN -90 AND 90),
    longitude  double precision NOT NULL CHECK (longitude BETWEEN -180 AND 180),
    time_zone  text NOT NULL,                           -- IANA
    currency   text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    version    bigint NOT NULL DEFAULT 1,               -- rises with every change of this row
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX cinemas_by_name ON cinemas (name_key, id);
CREATE INDEX cinemas_search ON cinemas USING gin (search_key gin_trgm_ops);

CREATE TABLE halls (
    id         uuid PRIMARY KEY,
    cinema_id  uuid NOT NULL REFERENCES cinemas,
    name       text NOT NULL,
    version    integer NOT NULL DEFAULT 1,              -- of the layout that new shows get
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX halls_of_cinema ON halls (cinema_id, id);

-- Every layout a hall ever had; rows are never changed. A show keeps the version it was created with.
CREATE TABLE hall_layouts (
    hall_id    uuid NOT NULL REFERENCES halls,
    version    integer NOT NULL CHECK (version >= 1),
    layout     jsonb NOT NULL,                          -- {rows: [{row, seats: [{number, type, x, y}]}]}
    capacity   integer NOT NULL CHECK (capacity BETWEEN 1 AND 5000),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (hall_id, version)
);
