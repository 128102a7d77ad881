//! The seeded world: the second implementation of the runtime seam.
