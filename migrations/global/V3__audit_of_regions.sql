-- Lines that regions bring, and the region that a user wants to be served by.

-- Where it was done; '': here.
ALTER TABLE audit ADD COLUMN region text NOT NULL DEFAULT '';

-- None: the nearest.
ALTER TABLE users ADD COLUMN region text;
