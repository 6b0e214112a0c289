//! One adversarial suite for all transports.
