//! Nearest vectors of a scope.
