//! What every daemon is: configuration, telemetry, tracked tasks and drain, limits, the admin endpoint.
