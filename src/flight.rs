//! One answer in the making, and everybody who waits for it.
