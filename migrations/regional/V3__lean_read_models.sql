-- The read models, leaner: what is written for every booking is what the sellers have to share the machine with.
-- They are folded anew from the journals, so nothing is carried over.
--
-- An id that lives in a show is kept as the show and its `own` ten bytes. What a list needs beyond the columns
-- is JSON in `rest`, and what it needs of the show it joins; nothing that the show tells is repeated a booking.

DROP TABLE projected, shows, reservations, payments, refunds, tickets;

-- How far the tables below have come, a show, and what changes with every booking.
CREATE TABLE projected (
    show_id    uuid PRIMARY KEY,
    seq        bigint NOT NULL,
    free       integer NOT NULL,
    held       integer NOT NULL,
    sold       integer NOT NULL,
    blocked    integer NOT NULL,
    -- From when on somebody should look after it: a hold that runs out, money that is under way for long.
    attend_at  timestamptz
) WITH (fillfactor = 50);
CREATE INDEX projected_to_attend ON projected (attend_at) WHERE attend_at IS NOT NULL;

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
    currency     text        NOT NULL,
    -- As the API tells it, but for the availability.
    view         jsonb       NOT NULL
);
CREATE INDEX shows_by_start ON shows (starts_at, id);
CREATE INDEX shows_by_cinema ON shows (cinema_id, starts_at);
CREATE INDEX shows_by_movie ON shows (movie_id, starts_at);

CREATE TABLE reservations (
    show_id     uuid        NOT NULL,
    own         bytea       NOT NULL,
    customer    uuid,
    contact     text,
    reference   text        NOT NULL,
    status      text        NOT NULL,
    created_at  timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    rest        text        NOT NULL,
    PRIMARY KEY (show_id, own)
);
CREATE INDEX reservations_of_customer ON reservations (customer, created_at);
CREATE INDEX reservations_by_reference ON reservations (reference);

CREATE TABLE payments (
    show_id      uuid        NOT NULL,
    own          bytea       NOT NULL,
    reservation  bytea       NOT NULL,
    customer     uuid,
    method       text        NOT NULL,
    status       text        NOT NULL,
    amount       bigint      NOT NULL,
    refunded     bigint      NOT NULL,
    reason       text,
    created_at   timestamptz NOT NULL,
    settled_at   timestamptz,
    PRIMARY KEY (show_id, own)
);
CREATE INDEX payments_of_customer ON payments (customer, created_at);
CREATE INDEX payments_recent ON payments (created_at);

CREATE TABLE refunds (
    show_id     uuid        NOT NULL,
    own         bytea       NOT NULL,
    payment     bytea       NOT NULL,
    status      text        NOT NULL,
    amount      bigint      NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (show_id, own)
);

-- One live ticket a seat: a second one would be a seat sold twice, and stops the projector.
CREATE TABLE tickets (
    show_id      uuid  NOT NULL,
    own          bytea NOT NULL,
    reservation  bytea NOT NULL,
    seat         text  NOT NULL,
    status       text  NOT NULL,
    PRIMARY KEY (show_id, own)
);
CREATE UNIQUE INDEX tickets_seat_sold_once ON tickets (show_id, seat) WHERE status IN ('valid', 'admitted');
