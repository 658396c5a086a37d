//! Loading, as operators meet it.
