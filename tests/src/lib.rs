//! Black-box suites against the real binary.
