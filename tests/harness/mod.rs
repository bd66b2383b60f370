//! Private clusters for tests and the demo.
