-- An operator's word that what this database holds of shows which no other region holds is all that is to be had of
-- them, after it went back in time. It counts for one incarnation of the store: the one in which it is first read.
CREATE TABLE store_accepted (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    accepted_at  timestamptz NOT NULL DEFAULT now(),
    incarnation  bigint
);
