//! Who gets in, and who sees what.
