//! The demo.
pub struct Options {
    pub requests: Option<usize>,
    pub exit: bool,
    pub json: bool,
}
