//! What a vendor would refuse is refused.
