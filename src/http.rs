//! The HTTP door: `/metrics`, `/healthz`, `/readyz`.
