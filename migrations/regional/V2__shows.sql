-- Shows: their journals (the truth), and what is folded from them (may be dropped and rebuilt).

-- The head of each show's journal in this region's store. A ballot is (epoch, session, attempt), compared in
-- that order. `nonce` rises when a batch of unknown outcome is settled, so that a straggler misses.
CREATE TABLE show_head (
    show_id           uuid PRIMARY KEY,
    promised_epoch    bigint NOT NULL,
    promised_session  bigint NOT NULL,
    promised_attempt  bigint NOT NULL,
    accepted_epoch    bigint NOT NULL DEFAULT 0,
    accepted_session  bigint NOT NULL DEFAULT 0,
    accepted_attempt  bigint NOT NULL DEFAULT 0,
    seq               bigint NOT NULL DEFAULT 0,
    committed         bigint NOT NULL DEFAULT 0,
    hash              bytea  NOT NULL DEFAULT ''::bytea,
    nonce             bigint NOT NULL DEFAULT 0,
    CHECK (committed <= seq)
) WITH (fillfactor = 70);

-- One row a batch of events. `hash` chains to the entry before.
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
);

-- A hall shows one film at a time. Written before the show exists, so that two cannot be created at once.
CREATE EXTENSION IF NOT EXISTS btree_gist;
CREATE TABLE hall_bookings (
    show_id     uuid        NOT NULL,
    hall_id     uuid        NOT NULL,
    during      tstzrange   NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    -- Two while a show is being moved: at its old time and at its new.
    PRIMARY KEY (show_id, during),
    EXCLUDE USING gist (hall_id WITH =, show_id WITH <>, during WITH &&)
);

-- How far the read models below have come, a show.
CREATE TABLE projected (
    show_id  uuid PRIMARY KEY,
    seq      bigint NOT NULL
);

CREATE TABLE shows (
    id           uuid PRIMARY KEY,
    cinema_id    uuid        NOT NULL,
    hall_id      uuid        NOT NULL,
    movie_id     uuid        NOT NULL,
    starts_at    timestamptz NOT NULL,
    ends_at      timestamptz NOT NULL,
    on_sale_at   timestamptz,
    status       text        NOT NULL,
    home         text        NOT NULL,
    view         jsonb       NOT NULL
);
CREATE INDEX shows_by_start ON shows (starts_at, id);
CREATE INDEX shows_by_cinema ON shows (cinema_id, starts_at);
CREATE INDEX shows_by_movie ON shows (movie_id, starts_at);

CREATE TABLE reservations (
    id          text PRIMARY KEY,
    show_id     uuid        NOT NULL,
    customer    text,
    reference   text        NOT NULL,
    status      text        NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    view        jsonb       NOT NULL
);
CREATE INDEX reservations_of_customer ON reservations (customer, created_at DESC, id DESC);
CREATE INDEX reservations_of_show ON reservations (show_id, id);
CREATE INDEX reservations_by_reference ON reservations (reference);
CREATE INDEX reservations_to_expire ON reservations (expires_at) WHERE status = 'reserved';

CREATE TABLE payments (
    id              text PRIMARY KEY,
    reservation_id  text        NOT NULL,
    show_id         uuid        NOT NULL,
    customer        text,
    status          text        NOT NULL,
    created_at      timestamptz NOT NULL,
    view            jsonb       NOT NULL
);
CREATE INDEX payments_of_customer ON payments (customer, created_at DESC, id DESC);
CREATE INDEX payments_recent ON payments (created_at DESC, id DESC);
CREATE INDEX payments_open ON payments (created_at) WHERE status = 'pending';

CREATE TABLE refunds (
    id          text PRIMARY KEY,
    payment_id  text        NOT NULL,
    show_id     uuid        NOT NULL,
    status      text        NOT NULL,
    amount      bigint      NOT NULL,
    created_at  timestamptz NOT NULL
);
CREATE INDEX refunds_open ON refunds (created_at) WHERE status = 'pending';

-- One live ticket a seat: a second one would be a seat sold twice, and stops the projector.
CREATE TABLE tickets (
    id              text PRIMARY KEY,
    reservation_id  text   NOT NULL,
    show_id         uuid   NOT NULL,
    seat            text   NOT NULL,
    status          text   NOT NULL
);
CREATE UNIQUE INDEX tickets_seat_sold_once ON tickets (show_id, seat) WHERE status IN ('valid', 'admitted');

-- The key with which this region signs tickets, sealed under the master key.
CREATE TABLE ticket_keys (
    kid         text PRIMARY KEY,
    sealed      bytea       NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- Metres between two points given in degrees: great circles on a sphere (haversine), within half a per cent
-- of the earth; whole metres, so that a cursor compares exactly.
CREATE FUNCTION distance_m(lat_a float8, lon_a float8, lat_b float8, lon_b float8) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN round(2 * 6371008.8 * asin(least(1, sqrt(
        sin(radians(lat_a - lat_b) / 2) ^ 2
        + cos(radians(lat_a)) * cos(radians(lat_b)) * sin(radians(lon_a - lon_b) / 2) ^ 2))))::bigint;
