//! The path of a request, top-down.
