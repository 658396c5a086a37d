//! Reports of scripted records.
