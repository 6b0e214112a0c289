//! The router: HTTP and gRPC to tokens, and the choice of who, when and where.
