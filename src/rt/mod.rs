//! F1' the runtime seam.
