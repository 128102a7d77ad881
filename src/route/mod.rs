//! F4 who is tried, in what order.
