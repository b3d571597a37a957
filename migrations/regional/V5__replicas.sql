-- The incarnation of the region's store in which this replica of a show last was whole. When the registry
-- records that the store lost its tail it counts one on, and until a show's head follows, after its recovery,
-- the replica does not vote.
ALTER TABLE show_head ADD COLUMN incarnation bigint NOT NULL DEFAULT 0;
