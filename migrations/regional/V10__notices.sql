-- What customers are to be told. Written with the read models that are folded from the same entry, and gone once
-- `global` has it.
CREATE TABLE notice_outbox (
    id          uuid PRIMARY KEY,
    at          timestamptz NOT NULL,
    customer    uuid NOT NULL,
    kind        text NOT NULL,
    reference   text NOT NULL,
    title       text NOT NULL,
    starts_at   text NOT NULL,
    cinema      text NOT NULL,
    seats       text[] NOT NULL
);
CREATE INDEX notice_outbox_by_time ON notice_outbox (at);
