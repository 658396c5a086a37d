//! Accepted TCP connections whose writes are gathered.
