//! Backend reliability primitives that survive the night.
